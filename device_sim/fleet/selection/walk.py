"""A random order of the population, a piece at a time: every device once, and none of it is held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fl_mobile.seeds import rng_for, seed_for, splitmix64

_HELD = 1 << 12
"""A population up to this is permuted outright, which is exactly uniform."""

_ROUNDS = 6


def walk(seed: int, *keys: int | str, population: int, piece: int = 1024) -> Iterator[np.ndarray]:
    """Yields pieces ``int64[≤ piece]`` of a random order of 0 … population − 1.

    A large population goes through a Feistel network over the next even power of two, whose values outside the
    population are dropped (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): time and memory
    are those of the pieces taken.
    """
    if population <= _HELD:
        order = rng_for(seed, *keys).permutation(population)
        for start in range(0, population, piece):
            yield order[start : start + piece]
        return
    half = np.uint64((int(population - 1).bit_length() + 1) // 2)
    start_key, domain = seed_for(seed, *keys), 1 << int(2 * half)
    for start in range(0, domain, piece):
        positions = np.arange(start, min(start + piece, domain), dtype=np.uint64)
        order = _feistel(positions, half, start_key).astype(np.int64)
        yield order[order < population]


def head(seed: int, *keys: int | str, population: int, count: int) -> np.ndarray:
    """Returns the first ``count`` of `walk`, ``int64[min(count, population)]``."""
    taken, size = [np.zeros(0, np.int64)], 0
    for piece in walk(seed, *keys, population=population):
        if size >= count:
            break
        taken.append(piece)
        size += len(piece)
    return np.concatenate(taken)[:count]


def _feistel(position: np.ndarray, half: np.uint64, start_key: int) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = position >> half, position & mask
    for turn in range(_ROUNDS):
        key = np.uint64(seed_for(start_key, turn))
        left, right = right, left ^ (splitmix64(right ^ key) & mask)
    joined: np.ndarray = (left << half) | right
    return joined
