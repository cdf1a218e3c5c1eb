"""Integer-only probability models, and the buckets that turn any number into a small symbol plus raw bits.

A model is a list of frequencies over symbols ``0 … A−1`` that sum to exactly `TOTAL`. There are two kinds: tables
that travel (`write_table`), and `geometric`, which both ends compute from two counts. No float is involved, so every
platform gets the same ones.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq.bits import BitReader, BitWriter
from fl_mobile.errors import WireError

PRECISION = 20
"""Frequencies sum to 2^20 where they are used; a table travels with 2^4 to 2^14 and is shifted up."""

TOTAL = 1 << PRECISION
MIN_TABLE_BITS, MAX_TABLE_BITS = 4, 14
LINEAR = 16
_ONE = 1 << 31


def _bucket_starts() -> list[int]:
    starts, low, width = list(range(LINEAR)), LINEAR, 4
    while low < 1 << 40:
        starts += range(low, 2 * low, width)
        low, width = 2 * low, 2 * width
    return starts


_STARTS_LIST = _bucket_starts()
STARTS = np.array(_STARTS_LIST, np.int64)
"""First number of every bucket: 0 … 15 alone, then four buckets to every octave: 16–19, 20–23, …, 32–39, …"""

WIDTHS = np.array([0] * LINEAR + [2 + (i - LINEAR) // 4 for i in range(LINEAR, len(_STARTS_LIST))], np.int64)
"""Raw bits that tell the numbers of a bucket apart."""

_SMALL = 4096
_LOOKUP = (np.searchsorted(STARTS, np.arange(_SMALL), "right") - 1).astype(np.int32)


def bucket(numbers: np.ndarray) -> np.ndarray:
    """Returns the bucket of each number, ``int32[n]``.

    >>> bucket(np.array([0, 15, 16, 19, 20, 39, 40])).tolist()
    [0, 15, 16, 16, 17, 20, 21]
    """
    symbols = _LOOKUP[np.minimum(numbers, _SMALL - 1)]
    if len(numbers) and int(numbers.max()) >= _SMALL:
        large = np.flatnonzero(numbers >= _SMALL)
        symbols[large] = np.searchsorted(STARTS, numbers[large], "right") - 1
    return symbols


def bucket_of(number: int) -> int:
    """Returns the bucket of one number."""
    return int(np.searchsorted(STARTS, number, "right")) - 1


def geometric(count: int, slots: int) -> list[int]:
    """Returns the model of the gap between marks when ``count`` of ``slots`` places are marked at random.

    With ``q = ⌊(slots − count)·2^31 / slots⌋`` the chance that a gap reaches ``g`` is ``S(g) = q^g`` in 31-bit fixed
    point, each product cut to an integer: ``S(0) = 2^31``; from the start of one bucket to the next multiply by
    ``q^width`` and shift right by 31, where ``q^width`` comes from squaring ``q`` (and cutting) ``log2(width)`` times.
    Bucket ``j`` has frequency ``⌊S(start_j) / 2^11⌋ − ⌊S(start_j+1) / 2^11⌋``; the last one, which holds ``slots − 1``,
    gets what is left.
    """
    symbols = max(2, bucket_of(slots - 1) + 1)
    power = ((slots - count) << 31) // slots
    reach, width, frequencies = _ONE, 0, []
    for symbol in range(symbols - 1):
        while width < (symbol - 8) // 4 and symbol >= LINEAR:
            power = power * power >> 31
            width += 1
        after = reach * power >> 31
        frequencies.append((reach >> 11) - (after >> 11))
        reach = after
    return [*frequencies, reach >> 11]


def fit_table(counts: np.ndarray) -> tuple[list[int], int]:
    """Returns frequencies that sum to ``2^bits``, and ``bits``: finer the more symbols there are to code.

    Every symbol that occurs gets one part first; the rest is shared out in proportion, by largest remainder.
    """
    total, used = int(counts.sum()), int(np.count_nonzero(counts))
    bits = min(MAX_TABLE_BITS, max(MIN_TABLE_BITS, 2 * total.bit_length() // 3 + 1, (2 * used).bit_length()))
    shares = counts * ((1 << bits) - used)
    table = shares // total + (counts > 0)
    left = (1 << bits) - int(table.sum())
    table[np.argsort(-(shares % total), kind="stable")[:left]] += 1
    return table.tolist(), bits


def write_table(out: BitWriter, table: list[int], bits: int) -> None:
    """Writes a table: ``A − 1`` (Exp-Golomb order 1), ``bits − 4`` (4 bits), then frequencies 1 … A−1.

    Frequencies are Exp-Golomb of order ``max(0, bits − 2 − bit length of A)``; frequency 0 is what is left.
    """
    out.golomb(len(table) - 1, 1)
    out.put(bits - MIN_TABLE_BITS, 4)
    order = _table_order(len(table), bits)
    for frequency in table[1:]:
        out.golomb(frequency, order)


def read_table(reader: BitReader, max_symbols: int) -> list[int]:
    """Returns a table scaled to `TOTAL`; one that does not sum to it is a `WireError`."""
    symbols = reader.golomb(1, max_symbols - 1) + 1
    bits = reader.take(4) + MIN_TABLE_BITS
    if bits > MAX_TABLE_BITS:
        raise WireError("value", f"a frequency table has 2^{bits} parts, at most 2^{MAX_TABLE_BITS} are allowed")
    order = _table_order(symbols, bits)
    rest = [reader.golomb(order, 1 << bits) for _ in range(symbols - 1)]
    if sum(rest) > 1 << bits:
        raise WireError("value", f"a frequency table sums to more than 2^{bits}")
    return scale_table([(1 << bits) - sum(rest), *rest], bits)


def scale_table(table: list[int], bits: int) -> list[int]:
    """Returns the frequencies shifted up from ``2^bits`` to `TOTAL`."""
    return [frequency << (PRECISION - bits) for frequency in table]


def table_bits(table: list[int], bits: int) -> int:
    """Returns how many bits `write_table` takes."""
    order = _table_order(len(table), bits)
    entries = sum(2 * (f + (1 << order)).bit_length() - 1 - order for f in table[1:])
    return entries + 4 + 2 * (len(table) + 1).bit_length() - 2


def _table_order(symbols: int, bits: int) -> int:
    return max(0, bits - 2 - symbols.bit_length())
