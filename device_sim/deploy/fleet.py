"""Many reference clients in one process: each visits when it is due, on a few threads."""

from __future__ import annotations

import heapq
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from device_sim.deploy.examples import Examples
from device_sim.deploy.fitting import sums_of
from device_sim.deploy.training import OnLiteRT
from fl_mobile.client.asked import Visit
from fl_mobile.client.kept import device_key
from fl_mobile.client.participate import Client, Trainer
from fl_mobile.client.remote import Patience, Refused, Remote


@dataclass
class Fleet:
    """So many clients of one coordinator.

    Attributes:
        url: Of the coordinator.
        folder: Each client keeps what it keeps in ``<folder>/<its name>``.
        train: Examples → a trainer.
        threads: Clients that are at work at one time.
        told: Is called after every visit in which a client was asked.
        fits: Whether conditions allow it.
        registry: Public keys of the devices that masked sums are shared with.
    """

    url: str
    folder: Path
    train: Callable[[Examples], Trainer]
    threads: int = 4
    patience: Patience = field(default_factory=Patience)
    context: ssl.SSLContext | None = None
    told: Callable[[str, Visit], None] = lambda name, visit: None
    fits: Callable[[], str] = lambda: ""
    registry: frozenset[bytes] = frozenset()
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, everybody: Sequence[Examples], *, visits: int = 0) -> Counter[str]:
        """Returns what became of the visits: ``accepted``, or why not; ends when the coordinator is finished, or by
        `stop`.

        Args:
            visits: Rounds that each client takes part in at most; 0 until the run is finished.

        Raises:
            Refused, Unreachable: The coordinator does not want a client, or cannot be reached.
        """
        fetched: dict[str, bytes] = {}
        clients = [self._client(one, fetched) for one in everybody]
        for client in clients:  # one after another, so that the n-th file is device n of a new run
            client.enrol()
        due = [(0.0, at) for at in range(len(clients))]
        left, outcomes, began = [visits] * len(clients), Counter[str](), time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            busy: dict[Future[Visit], int] = {}
            try:
                while (due or busy) and not self._stop.is_set():
                    now = time.monotonic() - began
                    while due and due[0][0] <= now and len(busy) < self.threads:
                        _, at = heapq.heappop(due)
                        busy[pool.submit(clients[at].visit)] = at
                    pause = max(0.0, due[0][0] - now) if due and len(busy) < self.threads else None
                    if not busy:
                        self._stop.wait(pause)
                        continue
                    for future in wait(busy, timeout=pause, return_when=FIRST_COMPLETED).done:
                        at = busy.pop(future)
                        visit = future.result()
                        if visit.round_num is not None:
                            outcomes[visit.reason or "accepted"] += 1
                            left[at] -= 1
                            self.told(everybody[at].name, visit)
                        if not visit.finished and (not visits or left[at] > 0):
                            heapq.heappush(due, (time.monotonic() - began + visit.wait_seconds, at))
            except BaseException:
                self._stop.set()
                raise
        return outcomes

    def stop(self) -> None:
        """Ends `run` as soon as the visits under way have: they wait for nothing any more."""
        self._stop.set()

    def _client(self, one: Examples, fetched: dict[str, bytes]) -> Client:
        folder = self.folder / one.name
        remote = Remote(
            url=self.url, key=device_key(folder), patience=self.patience, rest=self._rest, context=self.context
        )
        return Client(
            remote,
            folder,
            self.train(one),
            fits=self.fits,
            fetched=fetched,
            runtime="litert",
            registry=self.registry,
            sums=partial(sums_of, one),
        )

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Refused(499, {"reason": "stopped"}, "client")


def on_litert(runtime: str = "litert") -> Callable[[Examples], Trainer]:
    """Returns how reference clients train."""
    engine = OnLiteRT(runtime)
    return lambda examples: partial(engine.fit, examples)
