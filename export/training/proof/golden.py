"""Keras' answers to a drawn case in a few numbers, beside the program: `fl-mobile verify` repeats them from files.

Long tensors are kept as their norm and products with drawn ±1 vectors: for a difference d and such a vector r,
E (r·d)² = ‖d‖² (Johnson & Lindenstrauss, 1984), so a handful of products tells how long a difference is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.training.proof.answers import MOST, Answers, Bound, Difference
from export.training.proof.cases import Case, case_from_json
from fl_mobile.seeds import rng_for

WHOLE, PRODUCTS = 16, 8
ELSEWHERE = 10.0
"""How much more a verifier allows than the builder: other processors sum in other orders."""

LEAST = 1e-3
"""Relative difference that every verifier allows: batch statistics of few examples amplify rounding."""


@dataclass(frozen=True)
class Sketch:
    """One quantity.

    Attributes:
        numbers: The values themselves, or their products with drawn vectors.
        size: What differences are relative to.
        allowed: Relative difference that rounding explains.
    """

    numbers: tuple[float, ...]
    size: float
    allowed: float


@dataclass(frozen=True)
class Golden:
    """A case with what Keras answers.

    Attributes:
        case: How to play it.
        sketches: Name of `Answers.arrays` → what it is.
        correct: Right answers, see `Answers`.
        unsure: How many of each rounding may turn.
        worst: Largest difference when the program was built; of that host, so it is not written.
    """

    case: Case
    sketches: Mapping[str, Sketch]
    correct: tuple[float, ...]
    unsure: tuple[float, ...]
    worst: Difference | None = None

    @classmethod
    def of(cls, case: Case, want: Answers, bounds: Mapping[str, Bound], found: Sequence[Difference]) -> Golden:
        """Returns the record of what was compared when the program was built."""
        sketches = {
            name: Sketch(sketch(name, value), bounds[name].size, float(f"{bounds[name].allowed:.1e}"))
            for name, value in want.arrays().items()
        }
        return cls(
            case,
            sketches,
            _floats(want.correct),
            _floats(want.unsure),
            max(found[:-1], key=lambda d: d.off / d.allowed),
        )

    def differences(self, got: Mapping[str, Sequence[float]], correct: Sequence[float]) -> list[Difference]:
        """Compares what another program answered.

        Args:
            got: Name → `sketch` of its answers.
            correct: Its right answers.
        """
        found = []
        for name, want in self.sketches.items():
            mine = np.asarray(got.get(name, ()), np.float64)
            truth = np.asarray(want.numbers, np.float64)
            allowed = min(max(LEAST, ELSEWHERE * want.allowed), MOST)
            off = float("inf")
            if mine.shape == truth.shape:
                off = float(np.sqrt(np.sum(np.square(mine - truth)))) / want.size
            found.append(Difference(name, off, allowed, want.size))
        turned = np.inf
        if len(correct) == len(self.correct):
            turned = float(np.max(np.abs(np.subtract(correct, self.correct)) - self.unsure, initial=0.0))
        return [*found, Difference("right answers", turned, 0.5, 1.0)]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return {
            "case": self.case.to_json(),
            "answers": {
                name: {"numbers": list(s.numbers), "size": s.size, "allowed": s.allowed}
                for name, s in self.sketches.items()
            },
            "correct": list(self.correct),
            "unsure": list(self.unsure),
        }


def golden_from_json(value: Mapping[str, Any]) -> Golden:
    """Reads what `Golden.to_json` wrote; `KeyError`, `TypeError` or `ValueError` if it is none."""
    sketches = {
        str(name): Sketch(_floats(s["numbers"]), float(s["size"]), float(s["allowed"]))
        for name, s in value["answers"].items()
    }
    numbers = [n for s in sketches.values() for n in (*s.numbers, s.size, s.allowed)]
    if not sketches or not np.isfinite(numbers).all() or min(s.size for s in sketches.values()) <= 0:
        raise ValueError("answers that are no finite numbers")
    return Golden(
        case_from_json(value["case"]),
        sketches,
        _floats(value["correct"]),
        _floats(value["unsure"]),
    )


def sketch(name: str, value: np.ndarray) -> tuple[float, ...]:
    """Returns few values as they are, many as products with drawn vectors scaled to keep lengths."""
    flat = np.asarray(value, np.float64).ravel()
    if flat.size <= WHOLE:
        return _floats(flat)
    signs = rng_for(0, "sketch", name).integers(0, 2, (PRODUCTS, flat.size), np.int8)
    return _floats((2.0 * (signs @ flat) - flat.sum()) / PRODUCTS**0.5)


def sketches_of(answers: Answers) -> tuple[dict[str, tuple[float, ...]], tuple[float, ...]]:
    """Returns sketches of a program's answers, and its right answers."""
    return {name: sketch(name, value) for name, value in answers.arrays().items()}, _floats(answers.correct)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
