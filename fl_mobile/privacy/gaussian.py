"""The discrete Gaussian on the integers, sampled exactly: only whole numbers are compared, nothing is rounded.

``P(x) ∝ exp(−x²/2σ²)`` for whole σ (Karney, "Sampling exactly from the normal distribution", ACM TOMS 42, 2016, section
on the discrete distribution). It is as private as the continuous one (Canonne, Kamath and Steinke, NeurIPS 2020),
without the low bits of floating point that give a sum away (arXiv 2112.05307).
"""

from __future__ import annotations

import numpy as np

from fl_mobile.privacy.keys import Keystream

LARGEST_SIGMA = 1 << 44
"""Products in the loops stay below 2⁶³."""

_WORDS_A_DRAW = 32
"""A draw takes about 24; what is left of a buffer goes into the next one."""
_PIECE = 1 << 14
"""Draws of one buffer: 4 MiB of keystream, whatever the number of parameters."""


def add_gaussian(values: np.ndarray, sigma: int, stream: Keystream) -> None:
    """Adds an independent discrete Gaussian of parameter ``sigma`` to each of ``int64[n]``.

    Args:
        values: Changed in place.
        sigma: A whole number from 1 to 2⁴⁴.
        stream: Where the random bits come from.

    Raises:
        ValueError: ``sigma`` is none; a fault of ours.
    """
    from fl_mobile.kernels.gaussian import add_draws

    if type(sigma) is not int or not 1 <= sigma <= LARGEST_SIGMA:
        raise ValueError(f"the discrete Gaussian takes a whole sigma from 1 to 2^44, got {sigma!r}")
    words, at, done = np.zeros(0, np.int64), np.zeros(1, np.int64), 0
    while done < len(values):
        # What an unfinished draw has read is read again: thrown away, long draws would be rarer than they must be.
        fresh = stream.words(_WORDS_A_DRAW * min(_PIECE, len(values) - done) + 64)
        words, at = np.concatenate([words[at[0] :], fresh]), np.zeros(1, np.int64)
        done = int(add_draws(values, done, sigma, words, at))
