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
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np

from device_sim.engines.batches import in_chunks
from device_sim.engines.records import NOBODY, Evaluation, Task, Then, Trainer, evaluation_of_all
from fl_mobile.errors import ModelError
from fl_mobile.records import FitPlan
from fl_mobile.tensors import Tensors

EVALUATE_PART = 2000
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
        self.spec, self.initial, self.from_logits, self.about = workers[0].call(_facts)
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
        work = (
            lambda chunk=chunk: self._call(_train, shared, chunk, plan, then)
            for chunk in in_chunks(tasks, plan, self._parameters)
        )
        return self._in_order(work)

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
        work = (
            lambda chunk=chunk: self._call(_score, shared, chunk, plan)
            for chunk in in_chunks(tasks, plan, self._parameters)
        )
        for scores in self._in_order(work):
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

    def _in_order(self, work: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Yields the results in order, a few calls under way at a time."""
        waiting: deque[Future[T]] = deque()
        try:
            for one in work:
                waiting.append(self._threads.submit(one))
                if len(waiting) >= self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # somebody stopped early: what has not begun shall not begin
                future.cancel()


def _facts(trainer: Trainer) -> tuple[Any, Tensors, bool, str]:
    return trainer.spec, trainer.initial, trainer.from_logits, trainer.about


def _prepare(trainer: Trainer, plan: FitPlan) -> None:
    trainer.prepare(plan)


def _train(trainer: Trainer, weights: Tensors, tasks: Sequence[Task], plan: FitPlan, then: Then[T]) -> T:
    return then(tasks, trainer.train(weights, tasks, plan))


def _score(trainer: Trainer, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
    return trainer.score(weights, tasks, plan)


def _without_trainer(trainer: Trainer, work: Callable[..., T], *args: Any) -> T:
    return work(*args)
