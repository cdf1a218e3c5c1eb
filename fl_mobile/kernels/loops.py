"""Loops over an update's values that NumPy would need several passes for; see `compiled` for when to import this."""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled


@compiled
def largest_magnitude(values: np.ndarray) -> float:
    """Returns the largest ``|value|`` of ``float32[n]``; 0 of nothing, NaN or Inf if one is among them."""
    bits, largest, found = values.view(np.int32), np.int32(0), np.empty(1, np.int32)
    for i in range(len(bits)):  # without the sign, bits are in the order of magnitudes: finite < Inf < NaN
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    found[0] = largest
    return float(found.view(np.float32)[0])


@compiled
def add_rounded(total: np.ndarray, values: np.ndarray, scale: float) -> None:
    """Adds each of ``float32[n]`` times ``scale``, rounded half to even, to ``int64[n]``."""
    for i in range(len(values)):
        total[i] += np.int64(np.rint(np.float64(values[i]) * scale))
