"""A process that answers clients beside the round master: it holds nothing that another could not take over.

```
phones ─▶ proxy ─┬▶ worker ─┐
                 ├▶ worker ─┼▶ PostgreSQL, blobs ◀─ round master: opens a round, waits, makes the step
                 └▶ master ─┘   one of them writes at a time; a receipt is given once its packet and row are safe
```
Every transaction begins by looking what the master has published. Who is asked, what a packet is worth and which place
it takes, a worker decides by the same `core` over the same rows; so it goes on while there is no master.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from fl_mobile.coordinator import published
from fl_mobile.coordinator.front import Attest, Front
from fl_mobile.coordinator.lease import Beside
from fl_mobile.coordinator.object_store import blobs_at
from fl_mobile.coordinator.records import Limits
from fl_mobile.coordinator.store import Store, Transaction
from fl_mobile.coordinator.writer import Writer
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.protocol.terms import Blob, initial_of, terms_from_json
from fl_mobile.tensors import Spec

LOOK_SECONDS = 0.2


class Worker(Front):
    """Answers clients of a run that a round master leads.

    Args:
        folder: As of the `Coordinator`: blobs and packets are in it, and uploads that are not whole.
        url: Of the database that both share.
        blobs: As of the `Coordinator`.
        stopped: Asked while waiting for a master to have begun, once at least; ends the waiting.

    Raises:
        ConfigError: The database cannot be shared.
        RunError: The waiting was stopped.
    """

    owns_parts = False

    def __init__(
        self,
        folder: Path,
        *,
        url: str,
        blobs: str = "",
        limits: Limits | None = None,
        writer: Callable[[Store], Writer] = Writer,
        attest: Attest = lambda public_key, told: "",
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        if not url.startswith("postgres"):
            raise ConfigError("--worker needs --database postgresql://…: an SQLite file is written by one process")
        self._version, self._spec, self._most = 0, ("", Spec()), 0
        store = Store(url, blobs_at(blobs, folder / "packets"), Beside(stopped=stopped), self._look)
        folder.mkdir(parents=True, exist_ok=True)  # not before a master has begun there
        served = blobs_at(blobs, folder / "blobs").of_run(store.run)
        super().__init__(folder, store, served, limits=limits, writer=writer, attest=attest)
        self._lost: BaseException | None = None
        try:
            self._writer.submit(lambda tx: None).result()
        except BaseException:
            self.close()
            raise

    @property
    def most_packet_bytes(self) -> int:
        """Length of the longest packet that is read now; between rounds, as in the last one."""
        return max(self._most, self.limits.json_bytes)

    def lose(self, error: BaseException) -> None:
        """Ends `serve`."""
        self._lost = error

    def serve(self, *, linger: float, stopped: Callable[[], bool]) -> None:
        """Returns some time after the run has finished, or when it is stopped.

        Args:
            linger: Seconds in which clients still hear that it is finished.

        Raises:
            RunError: The HTTP server has ended.
        """
        waiting = threading.Event()
        while not (self.finished or stopped()):
            if self._lost is not None:
                raise RunError(f"the worker's HTTP server ended by itself: {self._lost!r}") from self._lost
            waiting.wait(LOOK_SECONDS)
        for _ in range(int(linger / LOOK_SECONDS)):
            if stopped():
                return
            waiting.wait(LOOK_SECONDS)

    def _look(self, tx: Transaction) -> None:
        """Begins a transaction: by what the master tells now."""

        def parts_of(number: int) -> Callable[[int], Mapping[str, Blob]]:
            return lambda held: published.parts_made(self._tx, number, held)

        self._tx = tx
        found = published.read_published(tx, self._version, self._spec_of, parts_of)
        if found is None:
            return
        self._version, told = found
        self.terms, self.finished, self.history, self.pace = told.terms, told.finished, list(told.history), told.pace
        self._open = told.round
        if told.round is not None:
            self._most = told.round.most_bytes

    def _spec_of(self, terms: Blob) -> Spec:
        """Returns what travels, as clients read it from the terms."""
        known, spec = self._spec
        if known != terms.sha256:
            try:
                body = self.blobs.get(terms.sha256)
                spec = terms_from_json(body, self.blobs.get(initial_of(body).sha256)).agreement.spec
            except RunError as error:
                raise RunError(
                    f"{error}. --worker sees another store than its round master: give both the same --out on a disk"
                    " that both see, or the same --blobs"
                ) from None
            self._spec = terms.sha256, spec
        return spec
