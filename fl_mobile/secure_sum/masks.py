"""Vectors of numbers modulo 2^width: masks from ChaCha20, added in whole words and cut once, and packed for the way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fl_mobile.codecs.bits.fields import pack_fixed, unpack_fixed
from fl_mobile.errors import WireError
from fl_mobile.privacy.keys import Keystream
from fl_mobile.secure_sum.terms import SumTerms

_PIECE = 1 << 18
"""Bytes of keystream at a time: they stay in the processor's cache."""


def words_of(values: np.ndarray, terms: SumTerms) -> np.ndarray:
    """Returns ``int64[n]`` as the words that masks are added to: of 16 bits where fields fit, for half of the mask.

    Carries beyond a field do no harm: only its own bits are kept at the end, and they are right modulo 2^width.
    """
    word = np.dtype("<u2") if terms.width <= 16 else np.dtype("<u4")
    return (np.asarray(values, np.int64) & np.int64((1 << 8 * word.itemsize) - 1)).astype(word)


def add_masks(values: np.ndarray, masks: Iterable[tuple[bytes, int]]) -> None:
    """Adds each mask's keystream times its sign, 1 or −1, to ``uint16[n]`` or ``uint32[n]``, modulo their words."""
    size = _PIECE // values.itemsize
    words = np.empty(min(len(values), size), values.dtype)
    for key, sign in masks:
        stream = Keystream(key)
        for start in range(0, len(values), size):
            piece = values[start : start + size]
            drawn = stream.fill(words[: len(piece)])
            if sign > 0:
                np.add(piece, drawn, out=piece)
            else:
                np.subtract(piece, drawn, out=piece)


def pack_values(values: np.ndarray, terms: SumTerms) -> bytes:
    """Returns words modulo 2^width, ``width`` bits each."""
    return pack_fixed(values & values.dtype.type(2**terms.width - 1), terms.width)


def unpack_values(packet: bytes, terms: SumTerms) -> np.ndarray:
    """Returns words, `words_of`; raises `WireError`."""
    if len(packet) != (terms.values * terms.width + 7) // 8:
        raise WireError("truncated", f"{terms.values} values of {terms.width} bits expected, got {len(packet)} bytes")
    return words_of(unpack_fixed(packet, terms.width, terms.values), terms)
