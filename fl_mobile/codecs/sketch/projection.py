"""The projection of an update of d values onto k numbers, and back: a linear map that a 64-bit key names.

```
x  float32[d] ─ buckets: seeded shuffle and signs, d/k values each ─▶ u[k] ─ signs, Hadamard, signs, Hadamard ─▶ z[k]
```
In integers, so that a client in any language gets the same map:

* ``SplitMix64``: ``s ← s + 0x9E3779B97F4A7C15``; ``t = (s ^ s>>30)·0xBF58476D1CE4E5B9``; ``t = (t ^ t>>27)·
  0x94D049BB133111EB``; the draw is ``t ^ t>>31``; all mod 2^64.
* The key of a round is draw number ``round + 1`` (counted from 1) from the state ``seed``, which the run publishes.
* Buckets: n = k·⌈d/k⌉ places, ``p[i] = i``. From the state ``key``, for i = n − 1 down to 0: a draw t,
  ``j = ((t >> 32)·(i + 1)) >> 32``, exchange ``p[i]`` and ``p[j]``. Value i falls into bucket ``p[i] mod k``, with the
  sign −1 if that draw was odd. Places from d on hold zeros.
* ``u[b]`` is the sum of the signed values of bucket b, in the order of i, in float64.
* Rotation: signs from the state ``~key`` (all bits turned): the bits of each draw, lowest first, 1 meaning −1; k of
  them for the first signs, the next k for the second. `blocks` are rotated one by one: signs, butterflies (a, b →
  a + b, a − b at distances 1, 2, 4, …), second signs, butterflies, and a division by the block's length.

Both parts are their own inverse up to a factor: the way back turns each value's bucket number by its sign. Values of a
bucket share its noise, in random directions: d/k − 1 times the energy of the update, nothing of it along the update
itself on average, which is the kind that training hardly feels (docs/thousand.md).
"""

from __future__ import annotations

import functools

import numpy as np

from fl_mobile.codecs.bits.rotation import splitmix64
from fl_mobile.tensors import Tensors

LARGEST_BLOCK = 1 << 14
_ALL_BITS, _GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15


def round_key(seed: int, round_num: int) -> int:
    """Returns the key of a round's projection.

    >>> hex(round_key(0, 0)), round_key(1, 2) == round_key(1, 3)
    ('0xe220a8397b1dcdaf', False)
    """
    return int(splitmix64((seed + round_num * _GOLDEN) & _ALL_BITS, 1)[0])


def blocks(k: int) -> list[int]:
    """Returns the lengths of the blocks that are rotated, longest first: 2^14 as often as it fits, then k's binary.

    >>> blocks(3072), blocks(40_960), blocks(8)
    ([2048, 1024], [16384, 16384, 8192], [8])
    """
    whole, rest = divmod(k, LARGEST_BLOCK)
    return [LARGEST_BLOCK] * whole + [1 << bit for bit in range(13, -1, -1) if rest >> bit & 1]


@functools.lru_cache(maxsize=4)  # all clients of a round share one; of each a client catches up on, one
def codes_of(key: int, values: int, k: int) -> np.ndarray:
    """Returns ``int32[d]``: twice the bucket of each value, and 1 more if its sign is turned; not to be changed."""
    from fl_mobile.kernels.buckets import deal_buckets

    codes = np.empty(k * -(-values // k), np.int32)
    with np.errstate(over="ignore"):  # where it runs as plain Python, NumPy tells of sums mod 2^64
        deal_buckets(np.array([key], np.uint64), codes, k)
    codes.flags.writeable = False
    return codes[:values]


def bucket_sums(tensors: Tensors, key: int, k: int) -> np.ndarray:
    """Returns ``float64[k]``: the signed sums of buckets."""
    from fl_mobile.kernels.buckets import add_to_buckets

    codes, sums, at = codes_of(key, sum(t.size for t in tensors.values()), k), np.zeros(k), 0
    for tensor in tensors.values():
        values = np.ascontiguousarray(tensor, np.float32).reshape(-1)
        add_to_buckets(sums, values, codes[at : at + len(values)])
        at += len(values)
    return sums


def spread(numbers: np.ndarray, key: int, values: int) -> np.ndarray:
    """Returns the transpose of `bucket_sums`: each value gets its bucket's number, with its own sign."""
    from fl_mobile.kernels.buckets import from_buckets

    return from_buckets(numbers, codes_of(key, values, len(numbers)))


def rotate(numbers: np.ndarray, key: int) -> np.ndarray:
    """Returns ``float64[k]`` rotated; lengths are kept."""
    first, second = _signs(key, len(numbers))
    return _mix(_mix(numbers * first) * second) / _lengths(len(numbers))


def unrotate(numbers: np.ndarray, key: int) -> np.ndarray:
    """Returns ``float64[k]``: the inverse of `rotate`."""
    first, second = _signs(key, len(numbers))
    return _mix(_mix(numbers) * second) * first / _lengths(len(numbers))


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Returns each block's Walsh–Hadamard transform, not divided by anything: whole numbers stay whole."""
    from fl_mobile.kernels.ordered import butterflies

    out, at = numbers.copy(), 0
    for length in blocks(len(numbers)):
        butterflies(out[at : at + length], length)
        at += length
    return out


def _lengths(k: int) -> np.ndarray:
    return np.repeat(blocks(k), blocks(k)).astype(np.float64)


@functools.lru_cache(maxsize=4)
def _signs(key: int, k: int) -> np.ndarray:
    draws = splitmix64(key ^ _ALL_BITS, (2 * k + 63) // 64).astype("<u8")
    bits = np.unpackbits(draws.view(np.uint8), count=2 * k, bitorder="little")
    signs: np.ndarray = (1.0 - 2.0 * bits).reshape(2, k)
    signs.flags.writeable = False
    return signs
