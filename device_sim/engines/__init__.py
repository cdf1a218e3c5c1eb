"""Engines: *how* local training runs. One seam, `Engine.train`; one row each in `ENGINES`.

An engine gets the weights a cohort received and one `Task` a device, and yields their updates in task order. Same
weights, tasks and plan give the same updates whatever the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Spec, Tensors


@dataclass(frozen=True)
class Task:
    """One device's work in one round.

    Attributes:
        device: Index of the device in the fleet.
        x: Its examples, ``uint8[n, …]`` raw pixels or ``float32[n, …]``.
        y: Their labels, ``int64[n]``.
        seed: Seeds shuffling and dropout on this device in this round, and nothing else.
    """

    device: int
    x: np.ndarray
    y: np.ndarray
    seed: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in [0, 1] and mean loss over ``examples`` held-out examples."""

    accuracy: float
    loss: float
    examples: int


class Engine(Protocol):
    """Trains cohorts and evaluates the global model.

    Attributes:
        spec: What travels.
        initial: The model's first weights.
        from_logits: Whether the model's outputs still need softmax or sigmoid.
    """

    @property
    def spec(self) -> Spec: ...
    @property
    def initial(self) -> Tensors: ...
    @property
    def from_logits(self) -> bool: ...

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[tuple[Task, Update]]:
        """Yields every task with its update, in task order; memory holds a few updates at a time."""
        ...

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns accuracy and loss of the weights on held-out examples."""
        ...

    def close(self) -> None:
        """Ends worker threads or processes."""
        ...


def in_task_order(
    submit: Callable[[Task], Future[Update]], tasks: Iterable[Task], ahead: int
) -> Iterator[tuple[Task, Update]]:
    """Yields every task with its update in task order, at most ``ahead`` of them under way at once."""
    waiting: deque[tuple[Task, Future[Update]]] = deque()
    for task in tasks:
        waiting.append((task, submit(task)))
        if len(waiting) >= ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()


def _keras(build: Callable[[], Any], workers: int, probe: np.ndarray) -> Engine:
    from device_sim.engines.keras import KerasEngine

    return KerasEngine(build, workers, probe=probe)


def _litert(build: Callable[[], Any], workers: int, probe: np.ndarray) -> Engine:
    from device_sim.engines.litert import LitertEngine

    return LitertEngine(build, workers, probe=probe)


@dataclass(frozen=True)
class EngineRow:
    """One row of `ENGINES`: ``open(build_model, workers, a few examples)`` and a line for ``--help``."""

    open: Callable[[Callable[[], Any], int, np.ndarray], Engine]
    summary: str


ENGINES: dict[str, EngineRow] = {
    "keras": EngineRow(_keras, "a compiled Keras step per worker thread, reused for every device"),
    "litert": EngineRow(_litert, "the phone's own training program, an interpreter per worker thread"),
}
