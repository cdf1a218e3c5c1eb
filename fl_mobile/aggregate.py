"""Exact streaming sums: float32 updates are added as int64 fixed point, so arrival order cannot change a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors

FRACTION_BITS = 34
"""Resolution of the sum: 2⁻³⁴ ≈ 6e-11, far below float32's own at weight magnitudes."""

_HEADROOM = 2.0**62


class Aggregator(Protocol):
    """Folds updates one at a time; memory does not grow with their number."""

    def add(self, delta: Tensors, weight: int) -> None:
        """Adds ``weight · delta``; a `WireError` leaves the sum as it was."""
        ...

    def result(self) -> Tensors | None:
        """Returns the mean, ``float32``, or None if nothing was added."""
        ...

    @property
    def weight(self) -> int:
        """Sum of the weights so far."""
        ...


class WeightedMean:
    """``Σ weight·delta / Σ weight``, exact up to one rounding of each term to 2⁻³⁴ and one of the result.

    >>> from fl_mobile.tensors import TensorSpec
    >>> spec = {"w": TensorSpec((1,))}
    >>> mean = WeightedMean(spec)
    >>> mean.add({"w": np.array([1.0], np.float32)}, weight=3)
    >>> mean.add({"w": np.array([5.0], np.float32)}, weight=1)
    >>> mean.result()["w"].tolist()
    [2.0]
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._sum = {path: np.zeros(tensor.shape, np.int64) for path, tensor in spec.items()}
        self._bound = 0.0
        self.weight = 0

    def add(self, delta: Tensors, weight: int) -> None:
        """Adds ``weight · delta``.

        Raises:
            WireError: Reason ``"magnitude"``: the sum could leave int64. Honest updates are a thousand times smaller.
        """
        scale = float(weight) * 2.0**FRACTION_BITS
        # np.max, because Python's max() loses a NaN that does not come first; a NaN bound is refused below.
        largest = float(np.max([np.max(np.abs(v), initial=0.0) for v in delta.values()], initial=0.0))
        bound = self._bound + largest * scale + 1
        if not bound < _HEADROOM:
            raise WireError("magnitude", f"largest value {largest:g} with weight {weight} does not fit an exact sum")
        for path, value in delta.items():
            self._sum[path] += np.rint(np.multiply(value, scale, dtype=np.float64)).astype(np.int64)
        self._bound = bound
        self.weight += weight

    def result(self) -> Tensors | None:
        """Returns the mean, or None if nothing was added."""
        if not self.weight:
            return None
        divisor = self.weight * 2.0**FRACTION_BITS
        return {path: (total / divisor).astype(np.float32) for path, total in self._sum.items()}


AGGREGATORS: dict[str, Callable[[Spec], Aggregator]] = {"weighted-mean": WeightedMean}
