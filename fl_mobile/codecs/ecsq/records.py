"""What rounding hands to the entropy coder, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LAMBDA = 0.1
"""What a bit is worth in squared error, in units of step²; a fine entropy-coded uniform quantizer has ln 2 / 6."""

MAX_LEVEL = 1 << 20
"""Largest magnitude; a step so fine that a value would need more is made coarser."""


MAX_RANK = 15
"""Most directions of the low-rank part of one tensor: the layout has four bits for their number."""


class Levels(NamedTuple):
    """The non-zeros of a quantized update.

    Attributes:
        positions: ``int64[n]``, in all tensors laid end to end; rising, but in any order after decoding.
        magnitudes: ``int64[n]``, 1 … `MAX_LEVEL`.
        negative: ``bool[n]``.
    """

    positions: np.ndarray
    magnitudes: np.ndarray
    negative: np.ndarray


class Factors(NamedTuple):
    """What a decoder must know of the factors besides their levels.

    Attributes:
        ranks: ``int64[t]``: columns of ``U`` and ``V`` for every tensor, 0 for none.
        ratio: The factors' step in 32nds of Δ, 1 … 255.
        first_shift: Where level 1 of ``U`` is reconstructed, in 256ths of a step from the level.
        second_shift: The same for levels above 1.
    """

    ranks: np.ndarray
    ratio: int = 1
    first_shift: int = 0
    second_shift: int = 0
