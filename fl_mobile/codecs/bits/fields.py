"""Many raw bit fields at once, most significant bit first, without a loop."""

from __future__ import annotations

import numpy as np

from fl_mobile.errors import WireError


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


def pack_fixed(values: np.ndarray, width: int) -> bytes:
    """Returns the fields one after the other, all of ``width`` bits, 1 to 32: as `pack_fields`, far faster.

    Eight fields take ``width`` whole bytes, so that each byte of eight is made of the same fields in the same way.

    Args:
        values: Whole numbers from 0, each below ``2^width``.
    """
    rows = -(-len(values) // 8)
    padded = np.zeros(8 * rows, np.uint32)
    padded[: len(values)] = values
    fields, out = np.ascontiguousarray(padded.reshape(rows, 8).T), np.zeros((width, rows), np.uint8)
    for byte in range(width):
        for field in range(8 * byte // width, min(8, -(-8 * (byte + 1) // width))):
            below = width * (field + 1) - 8 * (byte + 1)  # bits of the field that come after this byte
            part = fields[field] >> np.uint32(below) if below >= 0 else fields[field] << np.uint32(-below)
            out[byte] |= part.astype(np.uint8)
    return out.T.tobytes()[: (len(values) * width + 7) // 8]


def unpack_fixed(data: memoryview | bytes, width: int, count: int) -> np.ndarray:
    """Returns ``uint32[count]`` fields of ``width`` bits, 1 to 32; raises as `unpack_fields`."""
    total_bits, rows = count * width, -(-count // 8)
    if len(data) != (total_bits + 7) // 8:
        raise WireError("truncated", f"raw bits: expected {(total_bits + 7) // 8} bytes, got {len(data)}")
    if total_bits % 8 and data[-1] & ((1 << (-total_bits % 8)) - 1):
        raise WireError("value", "the padding of the raw bits is not zero")
    raw = np.zeros(rows * width, np.uint8)
    raw[: len(data)] = np.frombuffer(data, np.uint8)
    lanes, out = np.ascontiguousarray(raw.reshape(rows, width).T).astype(np.uint64), np.empty((rows, 8), np.uint32)
    for field in range(8):
        first, end = width * field // 8, -(-width * (field + 1) // 8)
        whole = lanes[first].copy()
        for byte in range(first + 1, end):
            whole = whole << np.uint64(8) | lanes[byte]
        out[:, field] = whole >> np.uint64(8 * end - width * (field + 1)) & np.uint64((1 << width) - 1)
    return out.reshape(-1)[:count]


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
