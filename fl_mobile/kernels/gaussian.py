"""Loops of `privacy.gaussian`: draws from the discrete Gaussian out of random words, in whole numbers alone.

A loop that has run out of words puts ``at`` past their end, and its caller draws again from where the draw began.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled


@compiled
def mask_of(bound: int) -> int:
    """Returns the smallest 2^k − 1 that holds ``bound`` − 1 < 2⁶³."""
    mask = bound - 1
    for shift in (1, 2, 4, 8, 16, 32):
        mask |= mask >> shift
    return mask


@compiled
def below(bound: int, mask: int, words: np.ndarray, at: np.ndarray) -> int:
    """Returns a uniform whole number below ``bound``: words under its `mask_of`, those too large passed over."""
    if bound == 1:
        return 0
    while at[0] < len(words):
        drawn = words[at[0]] & mask
        at[0] += 1
        if drawn < bound:
            return drawn
    at[0] = len(words) + 1
    return 0


@compiled
def accepts(a: int, a_of: int, b: int, b_of: int, words: np.ndarray, at: np.ndarray) -> bool:
    """Returns True with probability ``exp(−a/a_of·b/b_of)``, both fractions at most 1.

    Forsythe's method (von Neumann 1951): the first n at which a coin of probability γ/n fails is odd so often.
    """
    n, n_mask, a_mask, b_mask = 1, 0, mask_of(a_of), mask_of(b_of)
    while (
        below(n, n_mask, words, at) == 0 and below(a_of, a_mask, words, at) < a and below(b_of, b_mask, words, at) < b
    ):
        n_mask |= n
        n += 1
        if at[0] > len(words):
            break
    return n % 2 == 1


@compiled
def draw(sigma: int, words: np.ndarray, at: np.ndarray) -> int:
    """Returns one draw; its words begin at ``words[at[0]]``, and ``at[0]`` is past the end if they were too few."""
    while at[0] <= len(words):
        k = 0
        while accepts(1, 2, 1, 1, words, at) and at[0] <= len(words):
            k += 1
        trials = k * (k - 1)
        while trials > 0 and accepts(1, 2, 1, 1, words, at):
            trials -= 1
        if trials > 0:
            continue
        negative, j = below(2, 1, words, at) == 1, below(sigma, mask_of(sigma), words, at)
        if k == 0 and j == 0 and negative:  # zero has one sign only
            continue
        trials = k + 1
        while trials > 0 and accepts(j, sigma, 2 * k * sigma + j, (2 * k + 2) * sigma, words, at):
            trials -= 1
        if trials > 0:
            continue
        return -(k * sigma + j) if negative else k * sigma + j
    return 0


@compiled
def add_draws(values: np.ndarray, start: int, sigma: int, words: np.ndarray, at: np.ndarray) -> int:
    """Adds a draw to each of ``int64[n]`` from ``start`` on; returns the first that the words did not reach to."""
    for i in range(start, len(values)):
        begun = at[0]
        drawn = draw(sigma, words, at)
        if at[0] > len(words):
            at[0] = begun
            return i
        values[i] += drawn
    return len(values)


@compiled
def add_toward_zero(total: np.ndarray, values: np.ndarray, scale: float) -> None:
    """Adds each of ``float32[n]`` times ``scale``, without its fraction, to ``int64[n]``: none gets longer by that."""
    for i in range(len(values)):
        total[i] += np.int64(np.float64(values[i]) * scale)
