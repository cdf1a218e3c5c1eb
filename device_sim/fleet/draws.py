"""Draws for many devices at once; each depends on (seed, keys, index) alone, whoever else is asked."""

from __future__ import annotations

import numpy as np

from fl_mobile.seeds import hashes, uniforms

_FARTHEST = 3.0
"""Standard deviations at which a draw is cut: a phone a thousand times slower than its class is no phone."""


def normals(seed: int, *keys: int | str, index: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]`` standard normal draws cut at ±3, by Box and Muller (1958)."""
    radius = np.sqrt(-2 * np.log1p(-uniforms(seed, *keys, "radius", index=index)))
    drawn = radius * np.cos(2 * np.pi * uniforms(seed, *keys, "angle", index=index))
    cut: np.ndarray = np.clip(drawn, -_FARTHEST, _FARTHEST)
    return cut


def lognormals(sigma: float | np.ndarray, seed: int, *keys: int | str, index: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]`` factors of median 1: ``exp(sigma * normal)``; exactly 1 where ``sigma`` is 0."""
    factors: np.ndarray = np.exp(np.asarray(sigma) * normals(seed, *keys, index=index))
    return factors


def pair(index: np.ndarray, second: np.ndarray | int) -> np.ndarray:
    """Returns ``uint64[n]``, one index for two: a device and a day, a device and a slot of time."""
    first = hashes(0, "pair", index=index)
    with np.errstate(over="ignore"):
        joined: np.ndarray = first + np.asarray(second).astype(np.int64).astype(np.uint64)
    return joined


def rows_of(shares: np.ndarray, seed: int, *keys: int | str, index: np.ndarray) -> np.ndarray:
    """Returns ``int64[n]``: a row of a table for each index, drawn in proportion to ``shares`` ``float64[rows]``."""
    edges = np.cumsum(shares) / np.sum(shares)
    found = np.searchsorted(edges, uniforms(seed, *keys, index=index), side="right")
    rows: np.ndarray = np.minimum(found, len(shares) - 1)
    return rows
