"""Bits, most significant first: small self-delimiting numbers and raw fields, written into and read out of a buffer.

Exp-Golomb code of order ``k`` for a number ``v ≥ 0``: let ``u = v + 2^k`` have ``b`` bits; send ``b − 1 − k`` zeros,
then the ``b`` bits of ``u``. Order 0 codes 0, 1, 2, 3 as ``1``, ``010``, ``011``, ``00100`` (H.264, section 9.1).

A writer is given the bit to write at and returns the bit after; a reader moves on in ``cursor``, ``int64[1]``.
"""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.kernels.compiled import compiled

_MAX_ZEROS = 40
"""No number of the format is longer; a longer run of zeros is an attack or noise."""


@compiled
def bit_length(number: int) -> int:
    """Returns how many bits a whole number below 2^53 has; 0 for 0."""
    return math.frexp(number)[1]


@compiled
def put(buffer: np.ndarray, at: int, value: int, width: int) -> int:
    """Writes ``value`` as ``width`` bits into ``uint8[n]``, which is zero from bit ``at`` on; returns the bit after."""
    left = width
    while left > 0:
        room = 8 - (at & 7)
        part = min(room, left)
        left -= part
        buffer[at >> 3] |= ((value >> left) & ((1 << part) - 1)) << (room - part)
        at += part
    return at


@compiled
def golomb(buffer: np.ndarray, at: int, value: int, order: int) -> int:
    """Writes ``value`` as an Exp-Golomb code; returns the bit after."""
    shifted = value + (1 << order)
    width = bit_length(shifted)
    return put(buffer, at + width - 1 - order, shifted, width)


@compiled
def take(data: np.ndarray, cursor: np.ndarray, width: int) -> int:
    """Returns the next ``width ≤ 56`` bits of ``uint8[n]``.

    Raises:
        WireError: There are fewer.
    """
    at = cursor[0]
    if at + width > 8 * len(data):
        raise WireError("truncated", "the side bits or raw bits go on behind the end of the payload")
    cursor[0] = at + width
    value = 0
    left = width
    while left > 0:
        room = 8 - (at & 7)
        part = min(room, left)
        left -= part
        value = value << part | (np.int64(data[at >> 3]) >> (room - part)) & ((1 << part) - 1)
        at += part
    return value


@compiled
def take_golomb(data: np.ndarray, cursor: np.ndarray, order: int, limit: int) -> int:
    """Returns an Exp-Golomb number of at most ``limit``.

    Raises:
        WireError: It is larger, or too long to be a number.
    """
    zeros = 0
    while not take(data, cursor, 1):
        zeros += 1
        if zeros > _MAX_ZEROS:
            raise WireError("value", "a number starts with more than 40 zero bits")
    value = (1 << (zeros + order)) - (1 << order) + take(data, cursor, zeros + order)
    if value > limit:
        raise WireError("value", "a number is above its limit")
    return value
