"""Bits, most significant first: small self-delimiting numbers one by one, and many raw fields at once.

Exp-Golomb code of order ``k`` for a number ``v ≥ 0``: let ``u = v + 2^k`` have ``b`` bits; send ``b − 1 − k`` zeros,
then the ``b`` bits of ``u``. Order 0 codes 0, 1, 2, 3 as ``1``, ``010``, ``011``, ``00100`` (H.264, section 9.1).
"""

from __future__ import annotations

import numpy as np

from fl_mobile.errors import WireError

_MAX_ZEROS = 40
"""No number of the format is longer; a longer run of zeros is an attack or noise."""


class BitWriter:
    """Collects numbers and returns them as bytes, the last one padded with zeros.

    >>> out = BitWriter()
    >>> out.put(5, width=3); out.golomb(2)
    >>> out.to_bytes().hex()
    'ac'
    """

    def __init__(self) -> None:
        self._fields: list[str] = []

    def put(self, value: int, width: int) -> None:
        """Appends ``value`` as ``width`` bits."""
        if width:
            self._fields.append(f"{value:0{width}b}")

    def golomb(self, value: int, order: int = 0) -> None:
        """Appends ``value`` as an Exp-Golomb code."""
        bits = f"{value + (1 << order):b}"
        self._fields.append("0" * (len(bits) - 1 - order) + bits)

    def to_bytes(self) -> bytes:
        """Returns everything written so far."""
        text = "".join(self._fields)
        count = (len(text) + 7) // 8
        return int(text.ljust(8 * count, "0") or "0", 2).to_bytes(count, "big")


class BitReader:
    """Reads what `BitWriter` wrote; past the end, or for an impossible number, it raises `WireError`."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def bytes_touched(self) -> int:
        """Returns how many whole bytes have been touched."""
        return (self._at + 7) // 8

    def take(self, width: int) -> int:
        """Returns the next ``width ≤ 56`` bits."""
        end = self._at + width
        if end > 8 * len(self._data):
            raise WireError("truncated", f"need {width} bits at bit {self._at} of {8 * len(self._data)}")
        first, last = self._at // 8, (end + 7) // 8
        window = int.from_bytes(self._data[first:last], "big")
        self._at = end
        return window >> (8 * last - end) & ((1 << width) - 1)

    def golomb(self, order: int, limit: int) -> int:
        """Returns an Exp-Golomb number of at most ``limit``."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > _MAX_ZEROS:
                raise WireError("value", f"a number starts with more than {_MAX_ZEROS} zero bits")
        value = (1 << (zeros + order)) - (1 << order) + self.take(zeros + order)
        if value > limit:
            raise WireError("value", f"number {value} is above its limit {limit}")
        return value


def pack_fields(values: np.ndarray, widths: np.ndarray) -> bytes:
    """Returns the fields one after the other, each ``widths[i]`` bits (1 to 32), the last byte padded with zeros.

    Args:
        values: ``int64[n]``, each below ``2^widths[i]``.
        widths: ``int64[n]``.
    """
    ends = np.cumsum(widths)
    if not len(ends):
        return b""
    total_bits = int(ends[-1])
    # Fields are laid into 64-bit words; at most one field straddles each border and spills into the next word.
    word, used = np.divmod(ends - widths, 64)
    room = 64 - used - widths
    field = values.astype(np.uint64)
    inside = np.where(room >= 0, field << np.maximum(room, 0).astype(np.uint64), 0)
    straddle = np.flatnonzero(room < 0)
    inside[straddle] = field[straddle] >> (-room[straddle]).astype(np.uint64)
    starts = np.flatnonzero(np.diff(word, prepend=-1))
    words = np.zeros(total_bits // 64 + 1, np.uint64)
    words[word[starts]] = np.bitwise_or.reduceat(inside, starts)
    words[word[straddle] + 1] |= field[straddle] << (64 + room[straddle]).astype(np.uint64)
    return words.astype(">u8").tobytes()[: (total_bits + 7) // 8]


def unpack_fields(data: memoryview, widths: np.ndarray) -> np.ndarray:
    """Returns ``int64[n]`` fields of ``widths[i]`` bits (1 to 32).

    Raises:
        WireError: ``data`` is not exactly as long as the fields, or its padding is not zero.
    """
    ends = np.cumsum(widths)
    total_bits = int(ends[-1]) if len(ends) else 0
    if len(data) != (total_bits + 7) // 8:
        raise WireError("truncated", f"raw bits: expected {(total_bits + 7) // 8} bytes, got {len(data)}")
    if total_bits % 8 and data[-1] & ((1 << (-total_bits % 8)) - 1):
        raise WireError("value", "the padding of the raw bits is not zero")
    padded = bytes(data) + bytes(8)
    # Every field lies within the 8 bytes that follow its first byte: read them all as overlapping 64-bit words.
    window = np.ndarray(len(data) + 1, ">u8", padded, strides=(1,))
    begin = ends - widths
    word = window[begin >> 3].astype(np.uint64)
    return ((word << (begin & 7).astype(np.uint64)) >> (64 - widths).astype(np.uint64)).astype(np.int64)
