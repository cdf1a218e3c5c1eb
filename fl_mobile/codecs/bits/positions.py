"""Where the kept values stand, in few bytes: a bitmap or Rice-coded gaps, whichever is shorter.

```
form u8        0 bitmap, 1 gaps
k LEB128       number of positions
bitmap         ceil(n/8) bytes, bit set where a value is kept, most significant bit first
gaps           r u8 (0 … 31), then
               unary stream: for every gap g its quotient g >> r as that many 0 bits and a 1, padded to a byte
               remainders:   for every gap its low r bits, padded to a byte
```
A gap is the number of dropped values before a kept one. Rice codes (Golomb codes whose divisor is 2^r; Golomb, IEEE
Trans. IT 1966) are within 4 % of the entropy of randomly scattered positions below a density of 1/4; the two streams
are kept apart so that both ends work on whole arrays.
"""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.codecs.bits.reader import Reader, varint
from fl_mobile.errors import WireError

_BITMAP, _GAPS = 0, 1


def encode_positions(keep: np.ndarray, count: int) -> bytes:
    """Returns the bytes of the rising positions ``keep`` (``int64[k]``) among ``count`` values."""
    head, bitmap_bytes = varint(len(keep)), (count + 7) // 8
    if len(keep):
        gaps = np.diff(keep, prepend=-1) - 1
        r, gap_bytes = _best_divisor(gaps)
        if 1 + gap_bytes < bitmap_bytes:
            return bytes([_GAPS]) + head + bytes([r]) + unary(gaps >> r) + pack_bits(gaps & ((1 << r) - 1), r)
    mask = np.zeros(count, np.uint8)
    mask[keep] = 1
    return bytes([_BITMAP]) + head + np.packbits(mask).tobytes()


def decode_positions(reader: Reader, count: int) -> np.ndarray:
    """Reads what `encode_positions` wrote: ``int64[k]``, rising, below ``count``; else `WireError`."""
    form, kept = reader.take(1)[0], reader.varint(limit=count)
    if form == _BITMAP:
        positions = np.flatnonzero(np.unpackbits(reader.array("u1", (count + 7) // 8), count=count))
        if len(positions) != kept:
            raise WireError("value", f"bitmap marks {len(positions)} of {count} values, its header says {kept}")
        return positions
    if form != _GAPS:
        raise WireError("value", f"unknown position form {form}, expected 0 (bitmap) or 1 (gaps)")
    r = reader.take(1)[0]
    if r > 31:
        raise WireError("value", f"Rice parameter {r} is above 31")
    quotients = read_unary(reader, kept, (count >> r) + kept)
    gaps = (quotients << r) + read_bits(reader, kept, r)
    positions = np.cumsum(gaps + 1) - 1
    if kept and positions[-1] >= count:
        raise WireError("value", f"position {positions[-1]} is outside the tensor's {count} values")
    return positions


def position_bytes(count: int) -> int:
    """Returns the most bytes that positions among ``count`` values take."""
    return 6 + (count + 7) // 8


def pack_bits(numbers: np.ndarray, width: int) -> bytes:
    """Returns ``width``-bit numbers, most significant bit first, padded with 0 bits to a whole byte.

    >>> pack_bits(np.array([1, 2, 3]), 2).hex()
    '6c'
    """
    if width == 0 or not len(numbers):
        return b""
    octets = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)[:, -((width + 7) // 8) :]
    bits = np.unpackbits(octets, axis=1)
    return np.packbits(bits[:, bits.shape[1] - width :]).tobytes()


def read_bits(reader: Reader, count: int, width: int) -> np.ndarray:
    """Reads what `pack_bits` wrote: ``int64[count]``; ``width`` is at most 31."""
    if width == 0:
        return np.zeros(count, np.int64)
    octets = (width + 7) // 8
    bits = np.unpackbits(reader.array("u1", (count * width + 7) // 8), count=count * width).reshape(count, width)
    packed = np.packbits(np.pad(bits, ((0, 0), (8 * octets - width, 0))), axis=1)
    return packed.astype(np.int64) @ (256 ** np.arange(octets - 1, -1, -1, dtype=np.int64))


def unary(quotients: np.ndarray) -> bytes:
    """Returns every number n as n 0 bits and a 1, padded with 0 bits to a whole byte."""
    if not len(quotients):
        return b""
    ends = np.cumsum(quotients + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1, np.uint8)
    bits[ends] = 1
    return np.packbits(bits).tobytes()


def read_unary(reader: Reader, count: int, most_bits: int) -> np.ndarray:
    """Reads ``count`` unary numbers that take at most ``most_bits`` bits together."""
    ahead = np.frombuffer(reader.peek(min(reader.left, (most_bits + 7) // 8)), np.uint8)
    ends = np.flatnonzero(np.unpackbits(ahead))[:count]
    if len(ends) < count:
        raise WireError("truncated", f"{count} positions expected, {len(ends)} found")
    reader.take((int(ends[-1]) + 8) // 8 if count else 0)
    return np.diff(ends, prepend=-1) - 1


def _best_divisor(gaps: np.ndarray) -> tuple[int, int]:
    """Returns the best Rice parameter and the bytes it takes; the best lies beside log2(mean gap · ln 2)."""
    guess = max(0, math.floor(math.log2(max(1.0, float(gaps.mean()) * math.log(2)))))
    sizes = {
        r: (int((gaps >> r).sum()) + len(gaps) + 7) // 8 + (r * len(gaps) + 7) // 8
        for r in range(max(0, guess - 1), min(guess + 2, 32))
    }
    best = min(sizes, key=lambda r: sizes[r])
    return best, sizes[best]
