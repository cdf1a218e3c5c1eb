"""Vectors of numbers modulo 2^width: masks from ChaCha20, added in 32 bits and cut once, and packed for the way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fl_mobile.codecs.bits.fields import pack_fields, unpack_fields
from fl_mobile.errors import WireError
from fl_mobile.privacy.keys import Keystream
from fl_mobile.secure_sum.terms import SumTerms

_PIECE = 1 << 18
"""Bytes of keystream at a time: they stay in the processor's cache."""


def add_masks(values: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """Adds each mask's keystream times its sign, 1 or −1, to ``uint32[n]``, modulo 2³²."""
    words = np.empty(min(len(values), _PIECE // 4), "<u4")
    for key, sign in masks:
        stream = Keystream(key)
        for start in range(0, len(values), _PIECE // 4):
            piece = values[start : start + _PIECE // 4]
            drawn = stream.fill(words[: len(piece)])
            if sign > 0:
                np.add(piece, drawn, out=piece)
            else:
                np.subtract(piece, drawn, out=piece)


def pack_values(values: np.ndarray, terms: SumTerms) -> bytes:
    """Returns ``uint32[values]`` modulo 2^width, ``width`` bits each."""
    cut = (values & np.uint32(2**terms.width - 1)).astype(np.int64)
    return pack_fields(cut, np.full(terms.values, terms.width, np.int64))


def unpack_values(packet: bytes, terms: SumTerms) -> np.ndarray:
    """Returns ``uint32[values]``; raises `WireError`."""
    if len(packet) != (terms.values * terms.width + 7) // 8:
        raise WireError("truncated", f"{terms.values} values of {terms.width} bits expected, got {len(packet)} bytes")
    fields = unpack_fields(memoryview(packet), np.full(terms.values, terms.width, np.int64))
    return fields.astype(np.uint32)
