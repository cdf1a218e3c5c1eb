"""What came out of a case, and how far two such records lie apart. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from export.training.proof.cases import Batch, Case, Material
from export.training.session import TrainingSession
from fl_mobile.errors import VerifyError
from fl_mobile.tensors import Tensors

TOLERANCE = 1e-4
"""Relative difference that is equal for any model: a few hundred float32 roundings on the way through one."""

ROUNDINGS = 20.0
"""How many times the effect of one rounding of the weights is allowed: a program rounds in every operation."""

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
    """

    outputs: np.ndarray
    evaluated: np.ndarray
    losses: np.ndarray
    correct: np.ndarray
    unsure: np.ndarray
    moved: Tensors
    start: Tensors

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


def sizes_of(answers: Answers) -> dict[str, float]:
    """Returns what every difference is relative to.

    A gradient that is truly zero (a bias in front of a BatchNormalization) is nothing but rounding: it is judged by the
    hundredth of the model's mean step.
    """
    arrays = answers.arrays()
    steps = [value for name, value in arrays.items() if name.startswith(WEIGHT)]
    squares = sum(float(np.sum(np.square(v, dtype=np.float64))) for v in steps)
    mean = float(np.sqrt(squares / max(sum(v.size for v in steps), 1)))
    least = {name: 1e-2 * mean * v.size**0.5 if name.startswith(WEIGHT) else 1e-6 for name, v in arrays.items()}
    return {name: max(norm(value), least[name], 1e-30) for name, value in arrays.items()}


def allowed_of(answers: Answers, nudged: list[Answers]) -> dict[str, float]:
    """Returns name → relative difference that rounding explains.

    Args:
        answers: The truth.
        nudged: The same from weights one rounding apart.
    """
    sizes, arrays = sizes_of(answers), answers.arrays()
    found = {}
    for name, value in arrays.items():
        noise = max((norm(other.arrays()[name] - value) for other in nudged), default=0.0)
        own = 0.0
        if name.startswith(WEIGHT):  # a step is known to half a unit of the weight's last place, before and after
            start = answers.start[name.removeprefix(WEIGHT)]
            own = 2.0**-23 * norm(np.maximum(np.abs(start), np.abs(start + value)))
        found[name] = max(TOLERANCE, (ROUNDINGS * noise + 4 * own) / sizes[name])
    return found


def compared(got: Answers, want: Answers, allowed: Mapping[str, float]) -> list[Difference]:
    """Returns every quantity's difference, in a fixed order."""
    sizes, mine, truth = sizes_of(want), got.arrays(), want.arrays()
    found = [
        Difference(name, norm(mine[name] - value) / sizes[name], allowed[name], sizes[name])
        for name, value in truth.items()
    ]
    turned = np.abs(got.correct - want.correct) - want.unsure
    return [*found, Difference("right answers", float(turned.max(initial=0.0)), 0.5, 1.0)]


def norm(value: np.ndarray) -> float:
    """Returns the L2 norm, summed in float64; infinite where a value is no number."""
    total = float(np.sqrt(np.sum(np.square(value, dtype=np.float64))))
    return total if np.isfinite(total) else float("inf")
