"""One thread that answers requests, many to a transaction: a disk commits a hundred in the time of one.

A reply is given after its transaction is on disk, never before. If the disk refuses, every request of the transaction
is told so and can be sent again; nothing of it was done.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import OperationalError

from fl_mobile.coordinator.records import NO_ROOM, Refusal
from fl_mobile.coordinator.store import Store, Transaction

T = TypeVar("T")
MOST_TOGETHER = 256
_TOLD = "the server's disk does not take it now, nothing was kept: try again later"


@dataclass
class _Work(Generic[T]):
    do: Callable[[Transaction], T]
    done: Future[T]
    outcome: Any = None
    error: BaseException | None = None

    def run(self, tx: Transaction) -> None:
        """Does the work inside a transaction; a refusal is an outcome, because it wrote nothing."""
        self.error = None
        try:
            self.outcome = self.do(tx)
        except Refusal as refusal:
            self.error = refusal

    def tell(self) -> None:
        """Tells whoever waits."""
        if self.error is None:
            self.done.set_result(self.outcome)
        else:
            self.done.set_exception(self.error)


class Writer:
    """Runs work in transactions of a store, in the order in which it came."""

    waits = True

    def __init__(self, store: Store) -> None:
        self._store, self._queue = store, queue.SimpleQueue[_Work[Any] | None]()
        self._thread = threading.Thread(target=self._run, name="coordinator-writer", daemon=True)
        self._thread.start()

    def submit(self, do: Callable[[Transaction], T]) -> Future[T]:
        """Returns what ``do`` returns or refuses, once it is on disk.

        The future raises `Refusal` 507 if the disk took nothing.
        """
        work = _Work(do, Future())
        self._queue.put(work)
        return work.done

    def close(self) -> None:
        """Finishes what is waiting and ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, ends = [first], False
            while len(batch) < MOST_TOGETHER and not ends:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                ends = more is None
                if more is not None:
                    batch.append(more)
            self._commit(batch)
            if ends:
                return

    def _commit(self, batch: list[_Work[Any]]) -> None:
        try:
            with self._store.transaction() as tx:
                for work in batch:
                    work.run(tx)
        except (OSError, OperationalError) as error:
            for work in batch:
                work.error = _refused_by_the_disk(error)
        except BaseException as error:  # a fault of ours in one request must not take the others with it
            if len(batch) > 1:
                for work in batch:
                    self._commit([work])
                return
            batch[0].error = error
        for work in batch:
            work.tell()


class AtOnce(Writer):
    """Runs every work where it is submitted, in a transaction of its own: nothing else happens meanwhile."""

    waits = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def submit(self, do: Callable[[Transaction], T]) -> Future[T]:
        """As `Writer.submit`; the future is done."""
        work = _Work(do, Future())
        self._commit([work])
        return work.done

    def close(self) -> None:
        """Does nothing."""


def _refused_by_the_disk(error: Exception) -> Refusal:
    refusal = Refusal(NO_ROOM, "no-room", _TOLD)
    refusal.__cause__ = error
    return refusal
