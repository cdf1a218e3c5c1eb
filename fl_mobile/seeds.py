"""Randomness keyed by what it is for, never drawn from a shared stream.

Two runs with one seed give the same bytes whatever the number of workers or the order updates arrive in,
because device 17's rounding in round 4 has a generator of its own.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.random.bit_generator import ISeedSequence


def seed_for(seed: int, *keys: int | str) -> int:
    """Returns a 64-bit seed for one purpose: the head of SHA-256 over ``seed`` and ``keys``.

    >>> seed_for(0, 3, 17, "train") == seed_for(0, 3, 17, "train") != seed_for(0, 3, 17, "codec")
    True
    """
    text = "/".join(f"{type(key).__name__}:{key}" for key in (int(seed), *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def rng_for(seed: int, *keys: int | str) -> np.random.Generator:
    """Returns a Philox generator for one purpose, e.g. ``rng_for(seed, round, device, "codec")``.

    Not for differential privacy: that noise needs a secret key.
    """
    return philox(seed_for(seed, *keys))


def philox(key: int) -> np.random.Generator:
    """Returns the generator ``Philox(key=key)``."""
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]


class _Key(ISeedSequence):  # type: ignore[misc]
    """Makes ``Philox(_Key(key))`` the generator of ``Philox(key=key)``, which first asks the system for entropy."""

    def __init__(self, key: int) -> None:
        self._words = np.array([key, 0], np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> np.ndarray:
        """Returns Philox's key, ``uint64[2]``; nothing else is asked for."""
        return self._words


def hashes(seed: int, *keys: int | str, index: np.ndarray) -> np.ndarray:
    """Returns ``uint64[…]``: one hash per element of ``index``, whatever else is asked at the same time.

    SplitMix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) at position
    ``index`` of the stream that ``seed`` and ``keys`` name: a million devices cost ten array operations, not a
    million generators.
    """
    return stream(np.uint64(seed_for(seed, *keys)), index)


def stream(start: np.ndarray | np.uint64, index: np.ndarray) -> np.ndarray:
    """Returns ``uint64[…]``: what SplitMix64 gives at position ``index`` from state ``start``, elementwise."""
    with np.errstate(over="ignore"):  # NumPy warns where a scalar wraps around, which is meant here
        return splitmix64(start + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def splitmix64(z: np.ndarray) -> np.ndarray:
    """Returns the SplitMix64 finaliser of ``uint64[…]``; a bijection."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = z ^ (z >> np.uint64(31))
        return mixed


def uniforms(seed: int, *keys: int | str, index: np.ndarray) -> np.ndarray:
    """Returns ``float64[…]`` in [0, 1): the top 53 bits of `hashes`."""
    draws: np.ndarray = (hashes(seed, *keys, index=index) >> np.uint64(11)) * 2.0**-53
    return draws


def uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns ``float32[count]`` in [0, 1) from the raw bits: 24 bits of each half of a 64-bit draw, low half first.

    Raw bits are stable over NumPy versions; ``Generator.random`` promises no such thing.
    """
    raw: np.ndarray = rng.bit_generator.random_raw((count + 1) // 2)  # type: ignore[attr-defined]
    return (raw.astype("<u8").view("<u4")[:count] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
