"""Loops over an update's values that NumPy would need several passes for; see `compiled` for when to import this."""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled

_SHIFT = 1.5 * 2.0**52
"""Added to a number below 2^51, leaves it in the last bits, rounded half to even: floats above 2^52 are whole."""
_SHIFT_BITS = int(np.array(_SHIFT).view(np.int64))
_PART = 512


@compiled
def largest_magnitude(values: np.ndarray) -> float:
    """Returns the largest ``|value|`` of ``float32[n]``; 0 of nothing, NaN or Inf if one is among them."""
    bits, largest, found = values.view(np.int32), np.int32(0), np.empty(1, np.int32)
    for i in range(len(bits)):  # without the sign, bits are in the order of magnitudes: finite < Inf < NaN
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    found[0] = largest
    return float(found.view(np.float32)[0])


@compiled
def add_rounded(total: np.ndarray, values: np.ndarray, scale: float, largest: float) -> None:
    """Adds each of ``float32[n]`` times ``scale``, rounded half to even, to ``int64[n]``.

    Args:
        largest: No ``|value|`` is above it; where terms stay below 2^51, processors round several at once.
    """
    if not abs(scale) * largest < 2.0**51:
        for i in range(len(values)):
            total[i] += np.int64(np.rint(np.float64(values[i]) * scale))
        return
    shifted = np.empty(_PART)
    bits = shifted.view(np.int64)
    for at in range(0, len(values), _PART):
        part, sums = values[at : at + _PART], total[at : at + _PART]
        for i in range(len(part)):
            shifted[i] = np.float64(part[i]) * scale + _SHIFT
        for i in range(len(part)):
            sums[i] += bits[i] - _SHIFT_BITS
