"""The coordinator: what answers clients, and the round that its master opens, waits for and takes the packets of."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from fl_mobile.coordinator import core, published, statistics, steps, sums
from fl_mobile.coordinator.core import Desk, Place
from fl_mobile.coordinator.front import Attest, Counts, Front, counts_of
from fl_mobile.coordinator.lease import ANOTHER, Lease
from fl_mobile.coordinator.object_store import blobs_at
from fl_mobile.coordinator.records import NO_ROOM, Limits, OpenRound, Pace, Refusal, Reply
from fl_mobile.coordinator.store import Store, Transaction, database_url, promised
from fl_mobile.coordinator.writer import Writer
from fl_mobile.errors import RunError
from fl_mobile.protocol.statistics import Statistic
from fl_mobile.records import Receipt

T = TypeVar("T")
DISK_SECONDS = 5.0
"""Between two looks whether the disk has room again."""

_log = logging.getLogger("fl_mobile.coordinator")


class Coordinator(Front):
    """Everything that serves one run.

    Args:
        folder: Of the coordinator's files, inside the run's.
        url: Of the database; empty is SQLite in ``folder``, which nobody else may write.
        blobs: URL of what holds packets and models, see `blobs_at`; empty is ``folder``.
        lease: Who writes a database that has a URL; None is this coordinator, at once or not at all.
        patient: Whether the round master waits for a disk that takes nothing until it does, as clients do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str = "",
        blobs: str = "",
        lease: Lease | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
        now: Callable[[], float] = time.time,
        writer: Callable[[Store], Writer] = Writer,
        patient: bool = True,
        attest: Attest = lambda public_key, told: "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lease = (lease or Lease()) if url else None
        store = Store(url or database_url(folder), blobs_at(blobs, folder / "packets"), lease)
        self._shared = bool(url)
        self._changed, self._patient = threading.Condition(), patient
        self._lost: BaseException | None = None
        served = blobs_at(blobs, folder / "blobs").of_run(store.run)
        super().__init__(folder, store, served, limits=limits, pace=pace, now=now, writer=writer, attest=attest)

    def upload(self, place: Place, packet: bytes) -> Future[Reply]:
        """See `core.upload`."""

        return self._heard(lambda tx, desk: core.upload(tx, desk, place, packet))

    def answer(self, place: Place, step: int, packet: bytes) -> Future[Reply]:
        """See `steps.answer`."""
        return self._heard(lambda tx, desk: steps.answer(tx, desk, place, step, packet))

    def open_round(self, round_: OpenRound) -> None:
        """Opens a round, or goes on with it; every round before it is done from now on, its packets are deleted.

        Raises:
            RunError: The store is ahead of the checkpoint.
        """

        def begin(tx: Transaction) -> None:
            core.check_goes_on(tx, round_.number)
            core.finish(tx, before=round_.number)
            core.open_round(tx, round_.number, masked=round_.masks is not None)
            if self._shared:
                published.begin(tx, round_.number)
                published.publish(tx, self._to_publish(round_))

        self._do(begin)
        self._do(self._clean)
        self._open = round_
        _log.info(
            "round opened", extra={"told": {"round": round_.number, "ask": None if round_.discreet else round_.ask}}
        )

    def wait(self, *, seconds: float | None, least: int, stopped: Callable[[], bool]) -> list[str]:
        """Returns the round's packets, by SHA-256, once it is sealed: enough are here, or time is over.

        Args:
            seconds: From now, by the monotonic clock; None waits for all.
            least: Packets that must be here when time is over.
            stopped: Asked again and again; the round stays open if it says so, and nothing is returned.

        Raises:
            RunError: No packet can come any more: the HTTP server has ended.
        """
        round_ = self._open
        assert round_ is not None
        packets = self._wait(partial(self._look, round_=round_, least=least), seconds=seconds, stopped=stopped)
        if packets is None:
            return []
        told = {"round": round_.number, "packets": None if round_.discreet else len(packets)}
        _log.info("round sealed", extra={"told": told})
        return packets

    def wait_step(
        self, step: int, *, seconds: float | None, least: int = 0, stopped: Callable[[], bool]
    ) -> dict[int, bytes] | None:
        """Returns what clients said in a step of a masked round, once it is closed; of `sums.PACKETS` the packets.

        Args:
            seconds: From now; None waits for all that were told something, and were not heard to have left.
            least: Of step 0: clients without which the end of time begins no sum.
            stopped: Asked again and again; ends the waiting, and None is returned.

        Raises:
            RunError: As `wait`.
        """
        round_ = self._open
        assert round_ is not None

        def look(tx: Transaction, over: bool) -> dict[int, bytes] | None:
            if self._shared:
                published.prepare(tx, round_)
            if not sums.close_if_due(tx, round_, step, now=self.now(), over=over, least=least):
                return None
            if step == sums.UNMASK:
                core.seal(tx, round_.number)
            return sums.answers(tx, round_.number, step)

        answers = self._wait(look, seconds=seconds, stopped=stopped)
        if answers is None or step != sums.PACKETS:
            return answers
        return {client: self.packet(sha256.decode()) for client, sha256 in answers.items()}

    def tell(self, step: int, what: Mapping[int, bytes]) -> None:
        """Hands out the messages of a step, client by client."""
        assert self._open is not None
        self._do(partial(sums.tell, number=self._open.number, step=step, what=what))

    def settle(self, receipts: Mapping[int, Receipt]) -> tuple[int, int]:
        """Tells clients of the open round who is in its sum; returns bytes of all messages, up and down."""
        assert self._open is not None
        number = self._open.number

        def told(tx: Transaction) -> tuple[int, int]:
            sums.settle(tx, number, receipts)
            return sums.traffic(tx, number)

        return self._do(told)

    def gather(
        self, asked: Sequence[Statistic], *, most: int, stopped: Callable[[], bool]
    ) -> dict[str, list[bytes]] | None:
        """Returns the packets of sums that answer each question, once ``most`` devices have; None if it was stopped.

        Raises:
            RunError: As `wait`.
        """
        self.most_sums, self.statistics = most, tuple(asked)

        def look(tx: Transaction, over: bool) -> dict[str, list[bytes]] | None:
            if any(statistics.counted(tx, one.about) < most for one in asked):
                return None
            return {one.about: statistics.packets(tx, one.about)[:most] for one in asked}

        found = self._wait(look, seconds=None, stopped=stopped)
        self.statistics = ()
        return found

    def statistics_bytes(self) -> int:
        """Returns what devices sent before round 1."""
        return self._do(statistics.upload_bytes)

    def packet(self, sha256: str) -> bytes:
        """Returns a packet that counts."""
        return self._store.packets.get(sha256)

    def counts(self, number: int) -> Counts:
        """Returns what a round has cost so far."""
        return self._do(partial(counts_of, number=number))

    def finish(self) -> None:
        """There will be no further round: clients are told so."""
        self.finished, self._open = True, None
        if self._shared:
            self._do(lambda tx: published.publish(tx, self._to_publish(None)))
        _log.info("run finished", extra={"told": {"run": self.run}})

    def lose(self, error: BaseException) -> None:
        """Whoever waits for packets is told that none can come any more."""
        with self._changed:
            self._lost = error
            self._changed.notify_all()

    def _heard(self, take: Callable[[Transaction, Desk], Reply]) -> Future[Reply]:
        """Asks, and wakes the master."""

        def heard(tx: Transaction, desk: Desk) -> Reply:
            reply = take(tx, desk)
            with self._changed:  # the master looks again after the commit: it asks the writer, whose turn comes then
                self._changed.notify_all()
            return reply

        return self._ask(heard)

    def _wait(
        self, look: Callable[[Transaction, bool], T | None], *, seconds: float | None, stopped: Callable[[], bool]
    ) -> T | None:
        """Returns what a look finds, at last; None if it was stopped.

        Args:
            look: Is told whether time is over.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while not stopped():
            if self._lost is not None:
                raise RunError(f"the coordinator's HTTP server ended by itself: {self._lost!r}") from self._lost
            over = until is not None and time.monotonic() >= until
            found = self._do(lambda tx, over=over: look(tx, over))  # type: ignore[misc]
            if found is not None:
                return found
            with self._changed:
                self._changed.wait(0.25 if self._writer.waits else 0)
        return None

    def _do(self, work: Callable[[Transaction], T]) -> T:
        """Returns what the work returns, as soon as the disk takes it."""
        while True:
            try:
                return self._writer.submit(work).result()
            except Refusal as refusal:
                if refusal.reason == ANOTHER:
                    raise RunError(f"this coordinator was taken for dead: {refusal.detail}") from None
                if refusal.status != NO_ROOM or not self._patient:
                    raise
                _log.error("%s", refusal.__cause__)
            with self._changed:
                self._changed.wait(DISK_SECONDS)

    def _clean(self, tx: Transaction) -> None:
        self._store.packets.keep_only(set(promised(tx.db)))

    def _look(self, tx: Transaction, over: bool, *, round_: OpenRound, least: int) -> list[str] | None:
        """Returns a round's packets once it is sealed; until then, makes what workers ask for."""
        packets = core.packets_of(tx.db, round_.number)
        if over and len(packets) >= least:
            core.seal(tx, round_.number)
        if core.is_sealed(tx, round_.number):
            return packets
        if self._shared:
            published.prepare(tx, round_)
        return None

    def _to_publish(self, round_: OpenRound | None) -> published.Published:
        return published.Published(self.terms, round_, self.finished, self.history, self.pace)
