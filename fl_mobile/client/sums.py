"""What a device sums up of its own examples, where means, spreads or a vocabulary are to follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fl_mobile.wire.sums import Part, Question

EXAMPLES, SUMS, SQUARES, COUNTS = "examples", "sums", "squares", "counts"


def moments_question(columns: int) -> Question:
    """Returns the question for means and spreads of so many columns."""
    return Part(EXAMPLES, 1), Part(SUMS, columns), Part(SQUARES, columns)


def moments_of(values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns number, sums and sums of squares of a device's rows ``float32[n, columns]``, each rounded once."""
    exact = values.astype(np.float64)  # squares of float32 fit into float64
    return {
        EXAMPLES: np.array([len(exact)], np.float64),
        SUMS: np.array([math.fsum(column) for column in exact.T]),
        SQUARES: np.array([math.fsum(column) for column in np.square(exact).T]),
    }


def bounded_moments_of(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the same of the means of a device's rows within public ranges, as a vector no longer than 1.

    Columns are cut off at ``low`` and ``high``, ``float64[columns]``, and scaled to −1 … 1, so that neither how many
    examples there are nor how large they are makes one device count for more than another. It holds some.
    """
    scaled = np.clip((values.astype(np.float64) - low) / (high - low) * 2 - 1, -1.0, 1.0)
    length = bounded_length(scaled.shape[1])
    mean, square = (part.mean(axis=0) / length for part in (scaled, np.square(scaled)))
    return {EXAMPLES: np.array([1 / length]), SUMS: mean, SQUARES: square}


def bounded_length(columns: int) -> float:
    """Returns how long the vector of `bounded_moments_of` is at most before it is divided by that."""
    return math.sqrt(1 + 2 * columns)


def counts_question(candidates: int) -> Question:
    """Returns the question for counts over a public list of candidates, number 0 for whatever is not in it."""
    return (Part(COUNTS, candidates + 1, counts=True),)


def end_to_end(parts: Iterable[tuple[np.ndarray, int]]) -> np.ndarray:
    """Returns numbers of several lists of candidates as those of one, ``int64[n]``: a list's behind those before it.

    Args:
        parts: Numbers from 0, and how many candidates their list has; what is below 0 is padding and left out.
    """
    found, first = [], 0
    for numbers, candidates in parts:
        found.append(numbers[numbers >= 0].astype(np.int64) + first)
        first += candidates
    return np.concatenate(found)


def counts_of(numbers: np.ndarray | Sequence[int], candidates: int) -> dict[str, np.ndarray]:
    """Returns how often a device holds each candidate; ``int[n]`` from 0 to ``candidates``."""
    return {COUNTS: np.bincount(np.asarray(numbers, np.int64), minlength=candidates + 1)}
