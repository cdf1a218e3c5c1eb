"""Rules that look at every coordinate's values in rising order: robust to a minority of updates that lie.

Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018. Statistics of batch
norm are coordinates like any other. Memory grows with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fl_mobile.aggregation.single import SingleUpdates, assumed_liars, middle
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec, Tensors

Combine = Callable[[np.ndarray], np.ndarray]


@dataclass
class OrderStatistic(SingleUpdates):
    """Combines updates coordinate by coordinate.

    Attributes:
        combine: ``float32[n, values]``, rising along the first axis → ``float32[values]``.
    """

    combine: Combine

    def _combined(self, updates: list[Tensors]) -> Tensors:
        return {path: self._one(updates, path).reshape(tensor.shape) for path, tensor in self.spec.items()}

    def _one(self, updates: list[Tensors], path: str) -> np.ndarray:
        values = np.sort(np.stack([update[path].ravel() for update in updates]), axis=0)
        return self.combine(values).astype(np.float32) + np.float32(0.0)  # sorting does not order −0.0 and 0.0


def trimmed(values: np.ndarray, share: float) -> np.ndarray:
    """Returns the mean of rising values ``float32[n, m]`` without ``⌈share·n⌉`` at either end, one at least.

    >>> trimmed(np.array([[-99.0], [1.0], [2.0], [3.0], [50.0]]), 0.2).tolist()
    [2.0]
    """
    cut = min(assumed_liars(len(values), share), (len(values) - 1) // 2) if share else 0
    found: np.ndarray = values[cut : len(values) - cut].mean(axis=0, dtype=np.float64)
    return found


def median(spec: Spec) -> OrderStatistic:
    """Returns the coordinate-wise median."""
    return OrderStatistic(spec, middle)


@dataclass(frozen=True)
class Trimming:
    """[server] of the trimmed mean."""

    trim: float = parameter(
        0.1, "share of the updates, rounded up, that is left out at either end", at_least=0, below=0.5
    )

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def trimmed_mean(spec: Spec, trim: float = Trimming.trim) -> OrderStatistic:
    """Returns the coordinate-wise mean without the share ``trim`` of the largest and of the smallest values."""
    return OrderStatistic(spec, partial(trimmed, share=Trimming(trim).trim))


def nothing_left(updates: int, trim: float = Trimming.trim) -> str:
    """Returns why trimming leaves nothing of so few updates."""
    cut = assumed_liars(updates, trim) if trim else 0
    told = f"it leaves out {cut} at either end (server.trim {trim:g}) and needs more than {2 * cut} updates"
    return f"{told}, and gets {updates}" if updates <= 2 * cut else ""
