"""Integer-only probability models, and the buckets that turn any number into a small symbol plus raw bits.

A model is frequencies over symbols ``0 … A−1`` that sum to exactly `TOTAL`. There are two kinds: tables that travel
(`write_table`), and `geometric`, which both ends compute from two counts. No float is involved, so every platform gets
the same ones.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq.bits import bit_length, golomb, put, take, take_golomb
from fl_mobile.errors import WireError
from fl_mobile.kernels.compiled import compiled

PRECISION = 20
"""Frequencies sum to 2^20 where they are used; a table travels with 2^4 to 2^14 and is shifted up."""

TOTAL = 1 << PRECISION
MIN_TABLE_BITS, MAX_TABLE_BITS = 4, 14
LINEAR = 16
_ONE = 1 << 31

MAX_NUMBER = 1 << 40
"""Gaps and magnitudes stay below it."""


def _bucket_starts() -> list[int]:
    starts, low, width = list(range(LINEAR)), LINEAR, 4
    while low < MAX_NUMBER:
        starts += range(low, 2 * low, width)
        low, width = 2 * low, 2 * width
    return starts


STARTS = np.array(_bucket_starts(), np.int64)
"""First number of every bucket: 0 … 15 alone, then four buckets to every octave: 16–19, 20–23, …, 32–39, …"""


_NEAR = np.searchsorted(STARTS, np.arange(512), "right") - 1
"""Buckets of the numbers that are asked for most."""


@compiled
def bucket_of(number: int) -> int:
    """Returns the bucket of a number.

    >>> [int(bucket_of(number)) for number in (0, 15, 16, 19, 20, 39, 40, 511, 512)]
    [0, 15, 16, 16, 17, 20, 21, 35, 36]
    """
    if number < len(_NEAR):
        return _NEAR[number]
    octave = bit_length(number) - 1
    return LINEAR + 4 * (octave - 4) + ((number >> (octave - 2)) & 3)


@compiled
def bucket_bits(symbol: int) -> int:
    """Returns the raw bits that tell the numbers of a bucket apart."""
    return 0 if symbol < LINEAR else 2 + (symbol - LINEAR) // 4


@compiled
def geometric(count: int, slots: int) -> np.ndarray:
    """Returns ``int64[A]``, the model of the gap between marks when ``count`` of ``slots`` places are marked at random.

    With ``q = ⌊(slots − count)·2^31 / slots⌋`` the chance that a gap reaches ``g`` is ``S(g) = q^g`` in 31-bit fixed
    point, each product cut to an integer: ``S(0) = 2^31``; from the start of one bucket to the next multiply by
    ``q^width`` and shift right by 31, where ``q^width`` comes from squaring ``q`` (and cutting) ``log2(width)`` times.
    Bucket ``j`` has frequency ``⌊S(start_j) / 2^11⌋ − ⌊S(start_j+1) / 2^11⌋``; the last one, which holds ``slots − 1``,
    gets what is left.
    """
    symbols = max(2, bucket_of(slots - 1) + 1)
    frequencies = np.empty(symbols, np.int64)
    power = ((slots - count) << 31) // slots
    reach, width = _ONE, 0
    for symbol in range(symbols - 1):
        while width < bucket_bits(symbol):
            power = power * power >> 31
            width += 1
        after = reach * power >> 31
        frequencies[symbol] = (reach >> 11) - (after >> 11)
        reach = after
    frequencies[symbols - 1] = reach >> 11
    return frequencies


@compiled
def fit_table(counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns frequencies ``int64[A]`` that sum to ``2^bits``, and ``bits``: finer the more symbols there are to code.

    Every symbol that occurs gets one part first; the rest is shared out in proportion, by largest remainder.
    """
    total, used = counts.sum(), np.count_nonzero(counts)
    bits = min(MAX_TABLE_BITS, max(MIN_TABLE_BITS, 2 * bit_length(total) // 3 + 1, bit_length(2 * used)))
    table, rest = np.empty(len(counts), np.int64), np.empty(len(counts), np.int64)
    left = 1 << bits
    for symbol in range(len(counts)):
        share = counts[symbol] * ((1 << bits) - used)
        table[symbol] = share // total + int(counts[symbol] > 0)
        rest[symbol] = share % total
        left -= table[symbol]
    for _ in range(left):
        largest = np.argmax(rest)
        table[largest] += 1
        rest[largest] = -1
    return table, bits


@compiled
def write_table(buffer: np.ndarray, at: int, table: np.ndarray, bits: int) -> int:
    """Writes a table: ``A − 1`` (Exp-Golomb order 1), ``bits − 4`` (4 bits), then frequencies 1 … A−1.

    Frequencies are Exp-Golomb of order ``max(0, bits − 2 − bit length of A)``; frequency 0 is what is left.
    """
    at = golomb(buffer, at, len(table) - 1, 1)
    at = put(buffer, at, bits - MIN_TABLE_BITS, 4)
    order = _table_order(len(table), bits)
    for frequency in table[1:]:
        at = golomb(buffer, at, frequency, order)
    return at


@compiled
def write_fitted(buffer: np.ndarray, at: int, counts: np.ndarray) -> tuple[int, np.ndarray]:
    """Writes a table made for these counts; returns the bit after, and the table scaled to `TOTAL`."""
    table, bits = fit_table(counts)
    return write_table(buffer, at, table, bits), table << (PRECISION - bits)


@compiled
def read_table(data: np.ndarray, cursor: np.ndarray, max_symbols: int) -> np.ndarray:
    """Returns a table scaled to `TOTAL`, ``int64[A]``.

    Raises:
        WireError: It does not sum to that.
    """
    symbols = take_golomb(data, cursor, 1, max_symbols - 1) + 1
    bits = take(data, cursor, 4) + MIN_TABLE_BITS
    if bits > MAX_TABLE_BITS:
        raise WireError("value", "a frequency table has more than 2^14 parts")
    order = _table_order(symbols, bits)
    table = np.empty(symbols, np.int64)
    left = 1 << bits
    for symbol in range(1, symbols):
        table[symbol] = take_golomb(data, cursor, order, 1 << bits)
        left -= table[symbol]
    if left < 0:
        raise WireError("value", "a frequency table sums to more than it may")
    table[0] = left
    return table << (PRECISION - bits)


@compiled
def _table_order(symbols: int, bits: int) -> int:
    return max(0, bits - 2 - bit_length(symbols))
