"""Loops of a random projection: which bucket each value falls into, and the sums of buckets; see `compiled`."""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_U1, _U27, _U30, _U31, _U32 = np.uint64(1), np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@compiled
def deal_buckets(state: np.ndarray, codes: np.ndarray, buckets: int) -> None:
    """Fills ``int32[n]``, n a multiple of ``buckets``: twice a value's bucket, and 1 more if its sign is turned.

    A shuffle (Fisher–Yates from the end) of 0 … n − 1, each remainder by ``buckets``: all buckets get as many values.

    Args:
        state: ``uint64[1]``, that of SplitMix64; ends where the last draw left it.
    """
    count = len(codes)
    for index in range(count):
        codes[index] = index
    now = state[0]
    for index in range(count - 1, -1, -1):
        now = now + _GOLDEN
        draw = (now ^ (now >> _U30)) * _MIX1
        draw = (draw ^ (draw >> _U27)) * _MIX2
        draw = draw ^ (draw >> _U31)
        other = np.int64(((draw >> _U32) * np.uint64(index + 1)) >> _U32)
        chosen = codes[other]
        codes[other] = codes[index]
        codes[index] = (chosen % buckets) << 1 | np.int32(draw & _U1)
    state[0] = now


@compiled
def add_to_buckets(sums: np.ndarray, values: np.ndarray, codes: np.ndarray) -> None:
    """Adds each of ``float32[n]`` to its bucket of ``float64[k]``, or takes it off where its sign is turned."""
    for index in range(len(values)):
        code = codes[index]
        sums[code >> 1] += np.float64(values[index]) * np.float64(1 - 2 * (code & 1))  # a branch would be a coin toss


@compiled
def from_buckets(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns ``[n]`` of the numbers' dtype: for each value that of its bucket, turned where its sign is."""
    both = np.empty(2 * len(numbers), numbers.dtype)
    for bucket in range(len(numbers)):
        both[2 * bucket], both[2 * bucket + 1] = numbers[bucket], -numbers[bucket]
    out = np.empty(len(codes), numbers.dtype)
    for index in range(len(codes)):
        out[index] = both[codes[index]]
    return out
