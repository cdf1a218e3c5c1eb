"""Two engines, one small federation: do they train the same updates and end at the same accuracy?

```
first engine's federation ─▶ every task on both engines, from equal weights ─▶ UpdateDifference
                                                                                   + final accuracy
second engine's own federation ─────────────────────────────────────────────▶ final accuracy
```
Float arithmetic has no one right order, so equal means: no further apart than rounding can explain, which is measured,
not guessed. Rounding moves an update in two ways. It grows smoothly with depth and steps: the first engine trains every
task once more from weights one rounding apart. And it may put one activation among millions on the other side of a
corner (ReLU's zero, two equal values in a pool), which changes a whole gradient: such a pair of updates agrees from a
start a little to the side, where a defect stays a defect.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from device_sim.engines import Engine, Evaluation, Task, Then, train_each
from device_sim.experiment.experiment import Experiment
from device_sim.federation.federation import Federation, open_federation
from device_sim.run.folder import create
from device_sim.run.log import Round, scores_of
from device_sim.run.loop import simulate
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors

REFERENCE = "keras"
T = TypeVar("T")

TOLERANCE = 1e-4
"""Relative difference that is equal for any model: a few hundred float32 roundings on the way through one."""

ROUNDINGS = 10.0
"""How many times the effect of one rounding of the weights is allowed: engines round in every operation, not once."""

ROUNDING, ASIDE = 2.0**-23, 2.0**-20
"""Relative changes of the weights: one rounding, and enough to leave a corner."""

STARTS_ASIDE = 3


@dataclass(frozen=True)
class UpdateDifference:
    """One device's two updates in one round.

    Attributes:
        round_num: Counted from 0.
        device: Index in the fleet.
        max_abs: Largest difference of one weight.
        relative: L2 norm of the difference / L2 norm of the first engine's update.
        allowed: What rounding explains.
        aside: Where ``relative`` is more than that: the smallest one from starts a little aside.
    """

    round_num: int
    device: int
    max_abs: float
    relative: float
    allowed: float
    aside: float | None = None

    @property
    def same(self) -> bool:
        """Whether the two engines did the same work."""
        return self.relative <= self.allowed or (self.aside is not None and self.aside <= self.allowed)


@dataclass(frozen=True)
class Comparison:
    """What two engines made of one experiment.

    Attributes:
        engines: Their names, first and second.
        updates: In the order they were trained.
        accuracy: Final held-out accuracy of each engine's own federation, 0 to 1.
        loss: Final held-out loss.
        examples: Held-out examples.
    """

    engines: tuple[str, str]
    updates: tuple[UpdateDifference, ...]
    accuracy: tuple[float, float]
    loss: tuple[float, float]
    examples: int

    @property
    def corners(self) -> int:
        """Updates that agree only a little aside."""
        return sum(u.same and u.relative > u.allowed for u in self.updates)

    @property
    def noise(self) -> float:
        """How far two accuracies on so many examples lie apart by chance: two standard errors and one example."""
        p = float(np.mean(self.accuracy))
        return 2.0 * (p * (1.0 - p) / self.examples) ** 0.5 + 1.0 / self.examples

    def problems(self) -> list[str]:
        """Returns what is not equal, in words; empty if the engines agree."""
        first, second = self.engines
        found = []
        apart = [u for u in self.updates if not u.same]
        if apart:
            worst = max(apart, key=lambda u: u.relative)
            found.append(
                f"{len(apart)} of {len(self.updates)} updates differ by more than rounding: device {worst.device} in"
                f" round {worst.round_num} by {worst.relative:.2g} of its update, where {worst.allowed:.2g} is allowed"
            )
        if not abs(self.accuracy[0] - self.accuracy[1]) <= self.noise:
            found.append(
                f"final accuracy is {self.accuracy[0]:.2%} on {first} and {self.accuracy[1]:.2%} on {second},"
                f" further apart than chance on {self.examples} examples ({self.noise:.2%})"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return asdict(self) | {"corners": self.corners, "accuracy_noise": self.noise, "problems": self.problems()}


def compare_engines(experiment: Experiment) -> Comparison:
    """Plays the experiment on ``keras`` and on the engine it names, or on ``litert`` if that is ``keras`` or ``auto``.

    Raises:
        ConfigError, DataError, ModelError: As `open_federation`.
        ExportError: The model cannot train on a phone.
    """
    names = (REFERENCE, "litert" if experiment.engine.name in (REFERENCE, "auto") else experiment.engine.name)
    # The reference first: it sets TensorFlow to one thread per op, which must happen before TensorFlow starts.
    first, second = (open_federation(replace(experiment, engine=replace(experiment.engine, name=n))) for n in names)
    with contextlib.closing(first.engine), contextlib.closing(second.engine):
        return compare(first, second.engine, names)


def compare(federation: Federation, second: Engine, names: tuple[str, str]) -> Comparison:
    """Plays the federation on its own engine and on ``second``; nothing of either is kept on disk."""
    both = _Both(federation.engine, second)
    rounds, alone = (scores_of(_play(replace(federation, engine=engine)))[-1] for engine in (both, second))
    return Comparison(
        engines=names,
        updates=tuple(both.differences),
        accuracy=(rounds.accuracy, alone.accuracy),
        loss=(rounds.loss, alone.loss),
        examples=len(federation.dataset.test),
    )


def _play(federation: Federation) -> list[Round]:
    with tempfile.TemporaryDirectory(prefix="fl-mobile-engines-") as folder:
        return list(simulate(federation, create(Path(folder) / "run", federation.experiment)))


@dataclass
class _Both:
    """`Engine` that is ``first``, and trains every task on ``second`` as well to note the difference."""

    first: Engine
    second: Engine
    differences: list[UpdateDifference] = field(default_factory=list)
    rounds: int = 0

    @property
    def spec(self) -> Spec:
        return self.first.spec

    @property
    def initial(self) -> Tensors:
        return self.first.initial

    @property
    def from_logits(self) -> bool:
        return self.first.from_logits

    @property
    def about(self) -> str:
        return f"{self.first.about}; checked against {self.second.about}"

    @property
    def time_steps(self) -> int:
        return self.first.time_steps

    @property
    def shares_memory(self) -> bool:
        return self.first.shares_memory

    @property
    def workers(self) -> int:
        return self.first.workers

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Then[T]) -> Iterator[T]:
        """Yields what ``then`` makes of the first engine's updates, as one chunk."""
        cohort = list(tasks)
        mine = list(train_each(self.first, weights, cohort, plan))
        nudged = train_each(self.first, moved(weights, 0, ROUNDING), cohort, plan)
        rounding = [relative_difference(a.delta, b.delta) for (_, a), (_, b) in zip(mine, nudged, strict=True)]
        allowed = max(TOLERANCE, ROUNDINGS * float(np.median(rounding)))
        theirs = train_each(self.second, weights, cohort, plan)
        found = [
            UpdateDifference(
                round_num=self.rounds,
                device=task.device,
                max_abs=max_difference(a.delta, b.delta),
                relative=relative_difference(a.delta, b.delta),
                allowed=allowed,
            )
            for (task, a), (_, b) in zip(mine, theirs, strict=True)
        ]
        again = [task for task, u in zip(cohort, found, strict=True) if not u.same]
        aside = self._aside(weights, again, plan)
        self.differences.extend(replace(u, aside=aside.get(u.device)) for u in found)
        self.rounds += 1
        yield then(cohort, [update for _, update in mine])

    def _aside(self, weights: Tensors, tasks: list[Task], plan: FitPlan) -> dict[int, float]:
        """Returns device → smallest relative difference over starts a little aside."""
        smallest: dict[int, float] = {}
        for key in range(STARTS_ASIDE if tasks else 0):
            start = moved(weights, key, ASIDE)
            runs = (train_each(engine, start, tasks, plan) for engine in (self.first, self.second))
            for (task, a), (_, b) in zip(*runs, strict=True):
                now = relative_difference(a.delta, b.delta)
                smallest[task.device] = min(now, smallest.get(task.device, now))
        return smallest

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns the first engine's evaluation."""
        return self.first.evaluate(weights, x, y, plan)

    def evaluate_each(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[Evaluation]:
        """Yields the first engine's evaluations."""
        return self.first.evaluate_each(weights, tasks, plan)

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Runs ``work(*args)`` on a worker of the first engine."""
        return self.first.submit(work, *args)

    def close(self) -> None:
        """Ends both."""
        self.first.close()
        self.second.close()


def relative_difference(a: Tensors, b: Tensors) -> float:
    """Returns ‖a − b‖₂ / ‖a‖₂ over all tensors; 0 if both are zero.

    >>> relative_difference({"w": np.ones(4)}, {"w": np.full(4, 1.5)})
    0.5
    """
    away = sum(float(np.sum(np.square(a[p] - b[p], dtype=np.float64))) for p in a) ** 0.5
    whole = sum(float(np.sum(np.square(a[p], dtype=np.float64))) for p in a) ** 0.5
    return away / whole if whole else (0.0 if away == 0 else float("inf"))


def max_difference(a: Tensors, b: Tensors) -> float:
    """Returns the largest |a − b| of one weight."""
    return max(float(np.abs(a[path] - b[path]).max(initial=0.0)) for path in a)


def moved(weights: Tensors, key: int, relative: float) -> Tensors:
    """Returns the weights, each times 1 ± ``relative`` by a seeded coin."""
    rng = rng_for(key, "moved weights")
    return {
        path: value * np.where(rng.random(value.shape) < 0.5, np.float32(1 - relative), np.float32(1 + relative))
        for path, value in weights.items()
    }
