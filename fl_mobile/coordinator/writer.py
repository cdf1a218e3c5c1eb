"""One thread that answers requests, many to a transaction: a disk commits a hundred in the time of one.

A reply is given after its transaction is on disk, never before. If the disk refuses, every request of the transaction
is told so and can be sent again; nothing of it was done. Whatever happens, every request that was submitted is told
something: nobody waits for a thread that has ended.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import OperationalError

from fl_mobile.coordinator.records import NO_ROOM, Refusal
from fl_mobile.coordinator.store import Store, Transaction
from fl_mobile.errors import RunError

T = TypeVar("T")
MOST_TOGETHER = 256
CLOSE_SECONDS = 60.0
"""What is waiting has this long to reach the disk when the coordinator ends."""

_TOLD = "the server's disk does not take it now, nothing was kept: try again later"


@dataclass
class _Work(Generic[T]):
    do: Callable[[Transaction], T]
    done: Future[T]
    outcome: Any = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.done.set_running_or_notify_cancel()  # whoever no longer waits for it does not undo it

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
        self._ended, self._entry = False, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="coordinator-writer", daemon=True)
        self._thread.start()

    def submit(self, do: Callable[[Transaction], T]) -> Future[T]:
        """Returns what ``do`` returns or refuses, once it is on disk; it cannot be cancelled.

        The future raises `Refusal` 507 if the disk took nothing, 503 if the writer has ended.
        """
        work = _Work(do, Future())
        with self._entry:
            if not self._ended:
                self._queue.put(work)
                return work.done
        _not_done(work)
        return work.done

    def close(self) -> None:
        """Finishes what is waiting and ends the thread.

        Raises:
            RunError: The disk did not take it in `CLOSE_SECONDS`.
        """
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            raise RunError(
                f"the coordinator's disk did not take what was waiting within {CLOSE_SECONDS:g} s; what clients have"
                " receipts for is safe. Look after the disk and start it again."
            )

    def _run(self) -> None:
        try:
            while self._commit_next():
                pass
        finally:  # whatever ended it, nobody waits for ever
            with self._entry:
                self._ended = True
            with contextlib.suppress(queue.Empty):
                while True:
                    if (work := self._queue.get_nowait()) is not None:
                        _not_done(work)

    def _commit_next(self) -> bool:
        """Commits what has come; returns whether there will be more."""
        try:
            first = self._queue.get(timeout=self._store.beat_seconds)
        except queue.Empty:
            self._commit([])  # keeps the lease
            return True
        if first is None:
            return False
        batch = [first]
        while len(batch) < MOST_TOGETHER:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._commit(batch)
                return False
            batch.append(more)
        self._commit(batch)
        return True

    def _commit(self, batch: list[_Work[Any]]) -> None:
        try:
            with self._store.transaction() as tx:
                for work in batch:
                    work.run(tx)
        except (OSError, OperationalError) as error:
            for work in batch:
                work.error = _refused_by_the_disk(error)
        except BaseException as error:  # a fault of ours in one request must not take the others with it
            if len(batch) != 1:
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


def _not_done(work: _Work[Any]) -> None:
    work.error = Refusal(503, "ended", "the coordinator has ended, nothing of this request was done: ask again later")
    work.tell()


def _refused_by_the_disk(error: Exception) -> Refusal:
    refusal = Refusal(NO_ROOM, "no-room", _TOLD)
    refusal.__cause__ = error
    return refusal
