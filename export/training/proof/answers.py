"""What came out of a case, and how far two such records lie apart. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.training.proof.cases import Batch, Case, Material
from export.training.session import TrainingSession
from fl_mobile.errors import VerifyError
from fl_mobile.tensors import Tensors

TOLERANCE = 1e-4
"""Relative difference that is equal for any model: a few hundred float32 roundings on the way through one."""

ROUNDINGS = 20.0
"""How many times the effect of one rounding of the weights is allowed: a program rounds in every operation."""

OF_NOTHING = 0.03
"""Relative difference that a gradient which is nothing but rounding is allowed; a tenth of `MOST`."""

UNDETERMINED = 10.0
"""Mean steps by which a tensor is judged whose step Keras itself does not repeat from weights one rounding apart."""

MOST = 0.3
"""Relative difference that nothing is allowed, here or elsewhere: a proof that allows more shows nothing."""

FAINT = ROUNDINGS * 2.0**-23
"""A tensor's gradient, relative to the model's, that sums in another order make of nothing. Adam makes steps of it."""

MUTED = ROUNDINGS / 2
"""Roundings that a case without faint gradients counts as: a program may be on the other side of it."""

WEIGHT = "step of "
"""How the names of weight changes begin."""


@dataclass(frozen=True)
class Answers:
    """What came out of a case.

    Attributes:
        outputs: Of the first batch, before training.
        evaluated: Summed loss of the shortest batch, before training, ``float32[1]``.
        losses: Mean loss of every step.
        correct: Right answers: of `evaluated`, then of every step.
        unsure: For each of ``correct``, answers that rounding may turn.
        moved: Weights afterwards minus weights before.
        start: Weights before, what rounding of the weights themselves is judged by.
        faint: Whether the gradient of a tensor was `FAINT` in a step of Adam.
    """

    outputs: np.ndarray
    evaluated: np.ndarray
    losses: np.ndarray
    correct: np.ndarray
    unsure: np.ndarray
    moved: Tensors
    start: Tensors
    faint: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns everything that is compared by its norm, by name."""
        named = {"infer": self.outputs, "loss of evaluate": self.evaluated, "loss of train": self.losses}
        return named | {WEIGHT + path: value for path, value in self.moved.items()}

    def finite(self) -> bool:
        """Returns whether every number is one."""
        return all(bool(np.isfinite(value).all()) for value in self.arrays().values())


def by_program(session: TrainingSession, case: Case, material: Material) -> Answers:
    """Plays a case on a training program.

    Raises:
        VerifyError: Weights do not come out as they went in.
    """
    session.set_weights(material.weights)
    for path, value in session.get_weights().items():
        if not np.array_equal(value, material.weights[path]):
            raise VerifyError(f"weight {path!r} does not come out as it went in")
    if material.correction is not None:
        session.set_correction(material.correction)
    outputs = np.array(session.infer(material.batches[0][0]))
    evaluated = session.evaluate(*shortest(material))
    step = session.accumulate if case.accumulate else _train(session, case)
    steps = [step(x, y, seed=case.dropout_seed) for x, y in material.batches]
    if case.accumulate:
        session.apply(learning_rate=case.learning_rate, prox_mu=case.prox_mu)
    after = session.get_weights()
    moved = {path: after[path] - value for path, value in material.weights.items()}
    losses, correct = (np.array([pair[i] for pair in (evaluated, *steps)], np.float32) for i in (0, 1))
    return Answers(
        outputs=outputs,
        evaluated=losses[:1],
        losses=losses[1:],
        correct=correct,
        unsure=np.zeros_like(correct),
        moved=moved,
        start=material.weights,
    )


def shortest(material: Material) -> Batch:
    """Returns the batch that is evaluated: the one with the most padding."""
    return min(material.batches, key=lambda batch: len(batch[1]))


def _train(session: TrainingSession, case: Case) -> Callable[..., tuple[float, float]]:
    def train(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[float, float]:
        return session.train(x, y, learning_rate=case.learning_rate, seed=seed, prox_mu=case.prox_mu)

    return train


@dataclass(frozen=True)
class Difference:
    """One quantity of a case in two records.

    Attributes:
        name: Of `Answers.arrays`, or ``right answers``.
        off: L2 norm of the difference, relative to ``size``.
        allowed: What rounding explains.
        size: L2 norm of the true quantity, or what stands for it where that is next to nothing.
    """

    name: str
    off: float
    allowed: float
    size: float

    @property
    def same(self) -> bool:
        """Whether rounding explains the difference."""
        return bool(self.off <= self.allowed)  # not for NaN

    def __str__(self) -> str:
        return f"{self.name} is off by {self.off:.2g} of its size, where rounding explains {self.allowed:.2g}"


@dataclass(frozen=True)
class Bound:
    """What a difference of one quantity is judged by.

    Attributes:
        size: L2 norm it is relative to.
        allowed: Relative difference that rounding explains.
    """

    size: float
    allowed: float


Nudged = Sequence[tuple[float, Answers]]
"""Roundings that the weights were moved by, and what came out then."""


def bounds_of(answers: Answers, nudged: Nudged) -> dict[str, Bound]:
    """Returns what every difference is judged by.

    A gradient that is truly zero (a bias in front of a BatchNormalization) is nothing but rounding: it is judged by the
    hundredth of the model's mean step, and where its own rounding is a good part even of that (a depthwise convolution
    of ds-cnn sums thousands of terms to nothing), by as much of the mean step as keeps it below `OF_NOTHING`. Adam
    makes whole steps of such rounding (the bias of attention's keys): what Keras itself steps elsewhere by half of its
    length, while most of the model's step is repeated, is judged by `UNDETERMINED` mean steps.

    Args:
        answers: The truth.
        nudged: The same from weights a few roundings apart, or without faint gradients (queries to a sequence of one).
    """
    arrays = answers.arrays()
    steps = [value for name, value in arrays.items() if name.startswith(WEIGHT)]
    squares = sum(float(np.sum(np.square(v, dtype=np.float64))) for v in steps)
    mean = float(np.sqrt(squares / max(sum(v.size for v in steps), 1)))
    others = [(roundings, other.arrays()) for roundings, other in nudged]
    apart = {name: [(n, norm(other[name] - value)) for n, other in others] for name, value in arrays.items()}
    found = {name: _bound(name, value, mean, answers, apart[name]) for name, value in arrays.items()}
    stray = [
        name
        for name, value in arrays.items()
        if name.startswith(WEIGHT) and any(distance > norm(value) / 2 for _, distance in apart[name])
    ]
    if sum(norm(arrays[name]) ** 2 for name in stray) <= squares / 2:
        for name in stray:
            size = max(found[name].size, UNDETERMINED * _mean_step(mean, arrays[name]))
            found[name] = replace(found[name], size=size)
    return found


def with_turned(answers: Answers, nudged: Nudged) -> Answers:
    """Returns the answers with those counted as unsure that Keras itself gives otherwise from nudged weights."""
    turned = np.max([np.abs(other.correct - answers.correct) for _, other in nudged], axis=0)
    return replace(answers, unsure=np.maximum(answers.unsure, turned))


def chaotic(bounds: Mapping[str, Bound]) -> bool:
    """Returns whether Keras itself goes elsewhere, in most tensors, from weights one rounding apart."""
    steps = [bound.allowed >= MOST for name, bound in bounds.items() if name.startswith(WEIGHT)]
    return 2 * sum(steps) > len(steps)


def _mean_step(mean: float, value: np.ndarray) -> float:
    """Returns the length of a step of ``value``'s size whose numbers are the model's mean step."""
    return max(mean * float(value.size**0.5), 1e-30)


def _bound(name: str, value: np.ndarray, mean: float, answers: Answers, apart: Sequence[tuple[float, float]]) -> Bound:
    noise = max((ROUNDINGS / roundings * distance for roundings, distance in apart), default=0.0)
    if not name.startswith(WEIGHT):
        size = max(norm(value), 1e-6)
        return Bound(size, min(max(TOLERANCE, noise / size), MOST))
    start = answers.start[name.removeprefix(WEIGHT)]
    # A step is known to half a unit of the weight's last place, before and after.
    noise += 4 * 2.0**-23 * norm(np.maximum(np.abs(start), np.abs(start + value)))
    whole = _mean_step(mean, value)
    size = max(norm(value), 1e-2 * whole)
    if size > norm(value):
        size = max(size, min(noise / OF_NOTHING, whole))
    return Bound(size, min(max(TOLERANCE, noise / size), MOST))


def compared(got: Answers, want: Answers, bounds: Mapping[str, Bound]) -> list[Difference]:
    """Returns every quantity's difference, in a fixed order."""
    mine = got.arrays()
    found = [
        Difference(name, norm(mine[name] - value) / bounds[name].size, bounds[name].allowed, bounds[name].size)
        for name, value in want.arrays().items()
    ]
    turned = np.abs(got.correct - want.correct) - want.unsure
    return [*found, Difference("right answers", float(turned.max(initial=0.0)), 0.5, 1.0)]


def norm(value: np.ndarray) -> float:
    """Returns the L2 norm, summed in float64; infinite where a value is no number."""
    total = float(np.sqrt(np.sum(np.square(value, dtype=np.float64))))
    return total if np.isfinite(total) else float("inf")
