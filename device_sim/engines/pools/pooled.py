"""An engine made of several trainers: one a worker thread, one a worker process, or one an actor of a Ray cluster.

```
tasks ─▶ chunks ─▶ free worker: train, then(tasks, updates) ─▶ results in task order
```
Each trainer computes on one thread, so a chunk's result is the same wherever it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import PriorityQueue, SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np

from device_sim.engines.batches import in_chunks
from device_sim.engines.records import NOBODY, Evaluation, Task, Then, Trainer, evaluation_of_all
from fl_mobile.errors import ModelError
from fl_mobile.records import FitPlan
from fl_mobile.tensors import Tensors

EVALUATE_PART = 2000

AHEAD_BYTES = 64 * 2**20
"""Examples and updates of the chunks that are known ahead of the one whose result is awaited."""

T = TypeVar("T")


class Worker(Protocol):
    """Where one trainer lives.

    Attributes:
        shares_memory: Whether what it is given and returns stays in this process.
    """

    @property
    def shares_memory(self) -> bool: ...

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Returns ``work(trainer, *args)``, run where the trainer is."""
        ...

    def close(self) -> None:
        """Ends the worker."""
        ...


class LocalWorker:
    """A trainer in this process."""

    shares_memory = True

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Returns ``work(trainer, *args)``."""
        return work(self._trainer, *args)

    def close(self) -> None:
        """Does nothing."""


def _same(weights: Tensors) -> Any:
    return weights


def _nothing() -> None:
    pass


class PooledEngine:
    """`Engine` over workers that are alike.

    Args:
        workers: At least one.
        share: What makes a round's weights cheap to send to many workers; the identity in one process.
        leave: Is called after the last worker has ended.

    Raises:
        ModelError: Two workers have different models.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        share: Callable[[Tensors], Any] = _same,
        leave: Callable[[], None] = _nothing,
    ) -> None:
        self.spec, self.initial, self.from_logits, self.about, self.time_steps = workers[0].call(_facts)
        for worker in workers[1:]:
            other = worker.call(_facts)[0]
            if [tensor.shape for tensor in other.values()] != [tensor.shape for tensor in self.spec.values()]:
                raise ModelError("the model function built two different models; it must build the same one every time")
        self._all, self._share, self._leave, self.workers = list(workers), share, leave, len(workers)
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="engine")
        self._ahead = 2 * len(workers)
        self.shares_memory = all(worker.shares_memory for worker in workers)
        self._parameters = sum(tensor.size for tensor in self.spec.values())

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Then[T]) -> Iterator[T]:
        """Yields what ``then`` makes of every chunk of tasks, in task order."""
        shared = self._share(weights)
        chunks = in_chunks(tasks, plan, self._parameters, self.time_steps)
        return self._in_order((chunk, partial(self._call, _train, shared, chunk, plan, then)) for chunk in chunks)

    def prepare(self, plan: FitPlan) -> None:
        """Lets a trainer refuse now what it would refuse in round 1."""
        self._call(_prepare, plan)

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns accuracy and mean loss."""
        cuts = [slice(at, at + EVALUATE_PART) for at in range(0, len(y), EVALUATE_PART)]
        parts = list(self.evaluate_each(weights, [Task(NOBODY, x[cut], y[cut], 0) for cut in cuts], plan))
        return evaluation_of_all(plan, parts)

    def evaluate_each(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[Evaluation]:
        """Yields accuracy and mean loss of every task, in task order."""
        shared = self._share(weights)
        chunks = in_chunks(tasks, plan, self._parameters, self.time_steps)
        for scores in self._in_order((chunk, partial(self._call, _score, shared, chunk, plan)) for chunk in chunks):
            yield from scores

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Runs ``work(*args)`` on a worker, or on a thread of this process where workers are others.

        What it is given and returns, such as sums of packets, would be larger than the packets themselves.
        """
        if not self.shares_memory:
            return self._threads.submit(work, *args)
        return self._threads.submit(self._call, _without_trainer, work, *args)

    def close(self) -> None:
        """Ends the workers."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._leave()

    def _call(self, work: Callable[..., T], *args: Any) -> T:
        worker = self._free.get()
        try:
            return worker.call(work, *args)
        finally:
            self._free.put(worker)

    def _in_order(self, work: Iterable[tuple[Sequence[Task], Callable[[], T]]]) -> Iterator[T]:
        """Yields the results in order.

        Of the calls that are known the longest begins first, so that workers end together (Graham 1969). Known are a
        few, and as many as `AHEAD_BYTES` hold.
        """
        known: PriorityQueue[tuple[int, int, Callable[[], T], Future[T]]] = PriorityQueue()
        waiting: deque[tuple[int, Future[T]]] = deque()
        held = 0
        try:
            for number, (tasks, call) in enumerate(work):
                future: Future[T] = Future()
                known.put((-sum(len(task.y) for task in tasks), number, call, future))
                self._threads.submit(_longest, known)
                size = sum(task.x.nbytes + task.y.nbytes + 4 * self._parameters for task in tasks)
                waiting.append((size, future))
                held += size
                while len(waiting) >= self._ahead and held > AHEAD_BYTES:
                    size, future = waiting.popleft()
                    held -= size
                    yield future.result()
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:  # somebody stopped early: what has not begun shall not begin
                future.cancel()


def _longest(known: PriorityQueue[tuple[int, int, Callable[[], T], Future[T]]]) -> None:
    """Makes the longest call that is known; there is one for every time this is asked for."""
    _, _, call, future = known.get()
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # is raised where the result is taken
        future.set_exception(error)


def _facts(trainer: Trainer) -> tuple[Any, Tensors, bool, str, int]:
    return trainer.spec, trainer.initial, trainer.from_logits, trainer.about, trainer.time_steps


def _prepare(trainer: Trainer, plan: FitPlan) -> None:
    trainer.prepare(plan)


def _train(trainer: Trainer, weights: Tensors, tasks: Sequence[Task], plan: FitPlan, then: Then[T]) -> T:
    return then(tasks, trainer.train(weights, tasks, plan))


def _score(trainer: Trainer, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
    return trainer.score(weights, tasks, plan)


def _without_trainer(trainer: Trainer, work: Callable[..., T], *args: Any) -> T:
    return work(*args)
