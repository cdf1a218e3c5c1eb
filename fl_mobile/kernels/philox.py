"""NumPy's Philox without its objects: the words of `fl_mobile.seeds.rng_for`, many streams in one call.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter into four words of
64 bits. NumPy counts from 1, and ``key=`` sets the lower half of the key.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled

_ROUNDS, _SIDE_BY_SIDE = 10, 64
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_ONE_LOW, _ONE_HIGH = np.uint64(0xE14C6C93), np.uint64(0xD2E7470E)  # 0xD2E7470EE14C6C93
_TWO_LOW, _TWO_HIGH = np.uint64(0x95121157), np.uint64(0xCA5A8263)  # 0xCA5A826395121157
_KEY_STEPS = np.arange(_ROUNDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_OTHER_KEY_STEPS = np.arange(_ROUNDS, dtype=np.uint64) * np.uint64(0xBB67AE8584CAA73B)


@compiled
def words(key: np.ndarray, first: int, count: int) -> np.ndarray:
    """Returns ``uint64[count]``: what ``Philox(key=key).random_raw`` gives after ``first`` words.

    Args:
        key: ``uint64[1]``.
        first: How many words are passed over.
        count: Of words.
    """
    keys = key + _KEY_STEPS
    a, b = np.empty(_SIDE_BY_SIDE, np.uint64), np.empty(_SIDE_BY_SIDE, np.uint64)
    c, d = np.empty(_SIDE_BY_SIDE, np.uint64), np.empty(_SIDE_BY_SIDE, np.uint64)
    begin, end = first // 4, (first + count + 3) // 4
    out = np.empty((end - begin, 4), np.uint64)
    for at in range(begin, end, _SIDE_BY_SIDE):
        for i in range(_SIDE_BY_SIDE):
            a[i] = at + i + 1
        b[:] = c[:] = d[:] = 0
        for turn in range(_ROUNDS):
            _turn(a, b, c, d, keys[turn], _OTHER_KEY_STEPS[turn])
        for i in range(min(_SIDE_BY_SIDE, end - at)):
            row = out[at - begin + i]
            row[0], row[1], row[2], row[3] = a[i], b[i], c[i], d[i]
    return out.reshape(-1)[first - 4 * begin :][:count]


@compiled
def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, key: np.uint64, other: np.uint64) -> None:
    """Does one round to counters side by side: products of 128 bits, of halves that processors multiply at once."""
    for i in range(len(a)):
        low, high = a[i] & _LOW, a[i] >> _HALF
        bottom = _ONE_LOW * low
        middle = _ONE_HIGH * low + (bottom >> _HALF)
        across = _ONE_LOW * high + (middle & _LOW)
        top, last = _ONE_HIGH * high + (middle >> _HALF) + (across >> _HALF), across << _HALF | bottom & _LOW
        low, high = c[i] & _LOW, c[i] >> _HALF
        bottom = _TWO_LOW * low
        middle = _TWO_HIGH * low + (bottom >> _HALF)
        across = _TWO_LOW * high + (middle & _LOW)
        a[i] = _TWO_HIGH * high + (middle >> _HALF) + (across >> _HALF) ^ b[i] ^ key
        b[i] = across << _HALF | bottom & _LOW
        c[i], d[i] = top ^ d[i] ^ other, last
