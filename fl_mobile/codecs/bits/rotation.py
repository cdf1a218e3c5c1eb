"""A seeded random rotation of any length: two rounds of random signs and a block Hadamard transform.

Blocks of 2^14, then each smaller power of two once down to 2^7; what is left (at most 127 values) is padded to 128.
Two rounds, because after one a block with few non-zeros is not near Gaussian yet, and rounding it would be biased.
"""

from __future__ import annotations

import numpy as np

_LARGEST, _SMALLEST = 14, 7
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(seed: int, count: int) -> np.ndarray:
    """Returns ``uint64[count]`` of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): counter-based, same on every platform.

    >>> hex(splitmix64(0, 1)[0])
    '0xe220a8397b1dcdaf'
    """
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: np.ndarray = z ^ (z >> np.uint64(31))
    return out


def block_sizes(count: int) -> list[tuple[int, int]]:
    """Returns ``(block length, blocks)`` pairs that cover ``count`` values, longest first.

    >>> block_sizes(40_000)
    [(16384, 2), (4096, 1), (2048, 1), (1024, 1), (128, 1)]
    """
    sizes = [(1 << _LARGEST, count >> _LARGEST)] if count >> _LARGEST else []
    rest = count & ((1 << _LARGEST) - 1)
    sizes += [(1 << k, 1) for k in range(_LARGEST - 1, _SMALLEST - 1, -1) if rest >> k & 1]
    if rest & ((1 << _SMALLEST) - 1):
        sizes.append((1 << _SMALLEST, 1))
    return sizes


def rotate(values: np.ndarray, seed: int) -> list[np.ndarray]:
    """Returns the rotated values, one ``float32[blocks, length]`` per entry of `block_sizes`."""
    sizes = block_sizes(values.size)
    padded = np.zeros(sum(n * blocks for n, blocks in sizes), np.float32)
    padded[: values.size] = values
    first, second = _signs(seed, padded.size)
    groups = _split(padded * first, sizes)
    return [hadamard(hadamard(g) * s) for g, s in zip(groups, _split(second, sizes), strict=True)]


def unrotate(groups: list[np.ndarray], seed: int, count: int) -> np.ndarray:
    """Returns ``float32[count]``: the inverse of `rotate`."""
    sizes = block_sizes(count)
    first, second = _signs(seed, sum(n * blocks for n, blocks in sizes))
    back = [hadamard(hadamard(g) * s).ravel() for g, s in zip(groups, _split(second, sizes), strict=True)]
    out: np.ndarray = (np.concatenate(back) * first)[:count]
    return out


def hadamard(blocks: np.ndarray) -> np.ndarray:
    """Returns the orthonormal Walsh–Hadamard transform of each row, ``float32[blocks, n]``; its own inverse.

    Butterflies (a, b → a + b, a − b) in float32 at distances 1, 2, 4, … n/2, then one product with ``n^−½``: the same
    bits on every machine and in every language, which a matrix product is not.

    >>> hadamard(np.array([[1.0, 0.0]], np.float32)).round(3).tolist()
    [[0.7070000171661377, 0.7070000171661377]]
    """
    from fl_mobile.kernels.ordered import butterflies

    rows, n = blocks.shape
    out = np.array(blocks, np.float32, order="C").reshape(-1)
    butterflies(out, n)
    return (out * np.float32(n**-0.5)).reshape(rows, n)


def _signs(seed: int, count: int) -> np.ndarray:
    """Returns ``float32[2, count]`` of ±1: bit i of the stream (low bit of each draw first) set means −1."""
    draws = splitmix64(seed, (2 * count + 63) // 64).astype("<u8")
    bits = np.unpackbits(draws.view(np.uint8), count=2 * count, bitorder="little")
    return (1 - 2 * bits.astype(np.float32)).reshape(2, count)


def _split(values: np.ndarray, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    ends = np.cumsum([n * blocks for n, blocks in sizes])
    return [part.reshape(-1, n) for part, (n, _) in zip(np.split(values, ends[:-1]), sizes, strict=True)]
