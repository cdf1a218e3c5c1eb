"""Rules that look at every coordinate's values in rising order: robust to a minority of updates that lie.

Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018. Every update has the
same say, whatever it weighs: a claim about examples is the cheapest lie. Memory grows with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec, Tensors

Combine = Callable[[np.ndarray], np.ndarray]


@dataclass
class OrderStatistic:
    """Keeps single updates and combines them coordinate by coordinate; the order they came in does not matter.

    Attributes:
        spec: Shapes of the updates.
        combine: ``float32[n, values]``, rising along the first axis → ``float32[values]``.
    """

    spec: Spec
    combine: Combine
    _updates: list[Tensors] = field(default_factory=list)

    def add(self, delta: Tensors, weight: int) -> None:
        """Keeps an update; nothing can be taken out again.

        Raises:
            ValueError: A weight below 0; a fault of ours.
        """
        if weight < 0:
            raise ValueError("an order statistic cannot take an update out again")
        self._updates.append({path: delta[path] for path in self.spec})

    def merge(self, other: OrderStatistic) -> None:
        """Adds the updates of another."""
        self._updates += other._updates

    def result(self) -> Tensors | None:
        """Returns the aggregate, or None if nothing was added."""
        if not self._updates:
            return None
        return {path: self._combined(path).reshape(tensor.shape) for path, tensor in self.spec.items()}

    @property
    def weight(self) -> int:
        """Updates so far."""
        return len(self._updates)

    def _combined(self, path: str) -> np.ndarray:
        values = np.sort(np.stack([update[path].ravel() for update in self._updates]), axis=0)
        return self.combine(values).astype(np.float32) + np.float32(0.0)  # sorting does not order −0.0 and 0.0


def middle(values: np.ndarray) -> np.ndarray:
    """Returns the median of rising values ``float32[n, m]``: of an even number the mean of the two in the middle.

    >>> middle(np.array([[1.0], [2.0], [30.0]])).tolist()
    [2.0]
    """
    n = len(values)
    found: np.ndarray = (values[(n - 1) // 2].astype(np.float64) + values[n // 2]) / 2
    return found


def trimmed(values: np.ndarray, share: float) -> np.ndarray:
    """Returns the mean of rising values ``float32[n, m]`` without ``floor(share·n)`` at either end.

    >>> trimmed(np.array([[-99.0], [1.0], [2.0], [3.0], [50.0]]), 0.2).tolist()
    [2.0]
    """
    cut = int(share * len(values))
    found: np.ndarray = values[cut : len(values) - cut].mean(axis=0, dtype=np.float64)
    return found


def median(spec: Spec) -> OrderStatistic:
    """Returns the coordinate-wise median."""
    return OrderStatistic(spec, middle)


@dataclass(frozen=True)
class Trimming:
    """[server] of the trimmed mean."""

    trim: float = parameter(0.1, "share of the updates that is left out at either end", at_least=0, below=0.5)

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def trimmed_mean(spec: Spec, trim: float = Trimming.trim) -> OrderStatistic:
    """Returns the coordinate-wise mean without the share ``trim`` of the largest and of the smallest values."""
    return OrderStatistic(spec, partial(trimmed, share=Trimming(trim).trim))
