"""Exact streaming sums: float32 updates are added as int64 fixed point, so arrival order cannot change a bit."""

from __future__ import annotations

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors, loops

FRACTION_BITS = 34
"""Resolution of the sum: 2⁻³⁴ ≈ 6e-11, far below float32's own at weight magnitudes."""

_LARGEST_TERM, _HEADROOM = 2.0**61, 2.0**62


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
        self.spec = spec
        self._sum = {path: np.zeros(tensor.shape, np.int64) for path, tensor in spec.items()}
        self._carried: dict[str, np.ndarray] = {}
        self._bound = 0.0
        self.weight = 0

    def add(self, delta: Tensors, weight: int) -> None:
        """Adds ``weight · delta``.

        Raises:
            WireError: Reason ``"magnitude"``: ``weight·|value|`` reaches 2²⁷. Honest updates are a thousand times
                smaller. What was added before plays no part, or the order of arrival would decide who is refused.
        """
        scale = float(weight) * 2.0**FRACTION_BITS
        flat = {path: value.reshape(-1) for path, value in delta.items()}
        magnitudes = [loops().largest_magnitude(values) for values in flat.values()]
        if not all(abs(scale) * magnitude + 1 < _LARGEST_TERM for magnitude in magnitudes):  # NaN is not
            raise WireError("magnitude", f"values up to {max(magnitudes):g} times {weight} do not fit an exact sum")
        bound = abs(scale) * max(magnitudes, default=0.0) + 1
        if not self._bound + bound < _HEADROOM:
            self._carry()
        for (path, values), magnitude in zip(flat.items(), magnitudes, strict=True):
            loops().add_rounded(self._sum[path].reshape(-1), values, scale, magnitude)
        self._bound += bound
        self.weight += weight

    def merge(self, other: WeightedMean) -> None:
        """Adds what ``other`` has summed: the same bits as adding its terms one by one."""
        if not self._bound + other._bound < _HEADROOM:
            self._carry()
            other._carry()
        for path, low in other._sum.items():
            self._sum[path] += low
        for path, high in other._carried.items():
            self._carried[path] = self._carried.get(path, np.int64(0)) + high
        self._bound += other._bound
        self.weight += other.weight

    def result(self) -> Tensors | None:
        """Returns the mean, or None if nothing was added."""
        if not self.weight:
            return None
        divisor = self.weight * 2.0**FRACTION_BITS
        if self._carried:
            self._carry()  # both parts are then exact in float64: one rounding, and the bits of a sum without a carry
        total = {path: np.float64(2.0**32) * self._carried.get(path, 0) + low for path, low in self._sum.items()}
        return {path: np.asarray(value / divisor, np.float32) for path, value in total.items()}

    def _carry(self) -> None:
        """Moves all but the low 32 bits of the sums into a second integer each, long before int64 is full."""
        for path, low in self._sum.items():
            self._carried[path] = self._carried.get(path, np.int64(0)) + (low >> 32)
            low &= 0xFFFFFFFF
        self._bound = 2.0**32
