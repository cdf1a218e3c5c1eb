"""What goes into an engine and what comes out; the seam every engine has in common."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from fl_mobile.errors import ConfigError
from fl_mobile.local.losses import middle_of
from fl_mobile.records import FitPlan, Update
from fl_mobile.tasks import Tally, added, measured, tally_of, task_row
from fl_mobile.tensors import Spec, Tensors

T = TypeVar("T")


NOBODY = -1
"""In place of a device's index: examples are the server's."""


@dataclass(frozen=True)
class Task:
    """One device's work in one round.

    Attributes:
        device: Index of the device in the fleet, or `NOBODY`.
        x: Its examples, ``uint8[n, …]`` raw pixels or ``float32[n, …]``; at least one.
        y: Their targets: labels ``int64[n]``, or what the task of the plan has.
        seed: ``uint64``; seeds shuffling and dropout on this device in this round, and nothing else.
        start: Tensors that start at a value of the device's own instead of the received weights: its private layers,
            or all of its personal model.
        residual: What the device's last upload left out, under error feedback; engines only pass it on.
        pull: Is added to every step's gradient: a control variate (SCAFFOLD) or a linear penalty (FedDyn).
    """

    device: int
    x: np.ndarray
    y: np.ndarray
    seed: int
    start: Tensors | None = None
    residual: Tensors | None = None
    pull: Tensors | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some examples.

    Attributes:
        accuracy: Score of the task (the first metric of its row), at most 1; of classification the share that is right.
        loss: Mean.
        examples: How many.
        tally: What every metric of the task is computed from, see `fl_mobile.tasks.measured`; empty where an engine
            keeps none.
    """

    accuracy: float
    loss: float
    examples: int
    tally: Tally = field(default_factory=dict, compare=False, repr=False)


def evaluation_of(plan: FitPlan, y: np.ndarray, out: np.ndarray, loss: float) -> Evaluation:
    """Returns what outputs are worth.

    Args:
        plan: Its task and loss.
        y: Targets, ``[n, …]``.
        out: What the model answered, ``float32[n, …]``.
        loss: Mean over the examples.
    """
    middle = middle_of(plan.loss, from_logits=plan.from_logits)
    tally = tally_of(plan.task, y, out, from_logits=plan.from_logits, middle=middle)
    return Evaluation(_score(plan.task, tally), loss, len(y), tally)


def evaluation_of_all(plan: FitPlan, parts: Sequence[Evaluation]) -> Evaluation:
    """Returns what parts of a set are worth together, as if they had been evaluated at once."""
    count = sum(part.examples for part in parts)
    accuracy, loss = (math.fsum(getattr(p, k) * p.examples for p in parts) / count for k in ("accuracy", "loss"))
    if not all(part.tally for part in parts):
        return Evaluation(accuracy, loss, count)
    tally = added(part.tally for part in parts)
    return Evaluation(_score(plan.task, tally), loss, count, tally)


def _score(task: str, tally: Tally) -> float:
    """Returns the score of a task, 0 where it is undefined: of a sequence that is padding alone."""
    return measured(task, tally).get(task_row(task).metrics[0], 0.0)


Then = Callable[[Sequence[Task], Sequence[Update]], T]
"""What a worker does with a chunk's updates as soon as they are trained: the phones' half of the wire."""


@dataclass(frozen=True)
class Abilities:
    """What of a plan an engine can do beyond plain training; the only list of it.

    Attributes:
        keeps_zeros: Train with `FitPlan.keep_zeros`.
        fake_quant: Train with `FitPlan.fake_quant`.
        holds_still: Train some tensors only (`FitPlan.trained`), and pull to other weights than a task's ``start``.
    """

    keeps_zeros: bool = False
    fake_quant: bool = False
    holds_still: bool = False

    def refuse(self, plan: FitPlan, engine: str) -> None:
        """Raises `ConfigError` if ``engine``, which can do no more than this, could not train by the plan."""
        for asked, able, what in (
            (plan.fake_quant, self.fake_quant, "train with rounding ([train.qat])"),
            (plan.keep_zeros, self.keeps_zeros, "keep zeros ([train.pruning])"),
            (bool(plan.trained), self.holds_still, "hold tensors still"),
        ):
            if asked and not able:
                raise ConfigError(f'engine {engine} cannot {what}; use engine.name = "keras"')


KERAS = Abilities(keeps_zeros=True, fake_quant=True, holds_still=True)
VECTORIZED = Abilities(keeps_zeros=True, holds_still=True)
EXPORTED = Abilities()
"""A program that was built before training: it trains all of its weights, as they are."""


class Model(Protocol):
    """What is known of the model that trains.

    Attributes:
        spec: What travels.
        initial: The model's first weights.
        from_logits: Whether the model's outputs still need softmax or sigmoid.
        about: One line: how it trains, and why so.
        time_steps: Of the longest recurrent layer, in each of which all of its weights are used; 1 without any.
    """

    @property
    def spec(self) -> Spec: ...
    @property
    def initial(self) -> Tensors: ...
    @property
    def from_logits(self) -> bool: ...
    @property
    def about(self) -> str: ...
    @property
    def time_steps(self) -> int: ...


class Trainer(Model, Protocol):
    """One worker's model; used by one thread at a time, computes on one thread."""

    def prepare(self, plan: FitPlan) -> None:
        """Refuses a plan, or a model with it, that `train` could not train; `FitPlan.from_logits` is not looked at."""
        ...

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        """Returns each task's update relative to ``weights``."""
        ...

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        """Returns accuracy and mean loss on each task's examples; a task's ``start`` replaces weights."""
        ...


class Engine(Model, Protocol):
    """Trains cohorts and evaluates models, on so many ``workers``.

    Attributes:
        shares_memory: Whether workers are threads of this process: what they return then costs nothing to move.
    """

    @property
    def workers(self) -> int: ...
    @property
    def shares_memory(self) -> bool: ...

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Then[T]) -> Iterator[T]:
        """Yields what ``then`` makes of every chunk of tasks, in task order; memory holds a few chunks at a time.

        Args:
            weights: What the cohort received.
            tasks: Taken a few at a time, ahead of workers that become free.
            plan: How to train.
            then: Runs in the worker, on a chunk of tasks and their updates; it must be picklable, because workers may
                be processes. Where chunks end depends on the tasks and the plan alone.
        """
        ...

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns accuracy and loss of the weights on held-out examples."""
        ...

    def evaluate_each(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[Evaluation]:
        """Yields, in task order, accuracy and loss on every task's examples; a task's ``start`` replaces weights."""
        ...

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Runs ``work(*args)`` beside the training, in this process."""
        ...

    def close(self) -> None:
        """Ends worker threads or processes."""
        ...


def train_each(engine: Engine, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[tuple[Task, Update]]:
    """Yields every task with its update, in task order: `Engine.train` for who wants the updates themselves.

    Tasks, and with them examples, stay here; only updates come back from workers that are processes.
    """
    under_way: deque[Task] = deque()

    def passing() -> Iterator[Task]:
        for task in tasks:
            under_way.append(task)
            yield task

    for updates in engine.train(weights, passing(), plan, _updates):
        for update in updates:
            yield under_way.popleft(), update


def _updates(tasks: Sequence[Task], updates: Sequence[Update]) -> Sequence[Update]:
    return updates
