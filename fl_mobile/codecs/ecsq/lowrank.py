"""The part of a kernel's update that few directions explain, as two thin matrices of integers.

A device with few examples moves a dense or convolution kernel along few directions: on the demo's CNN four of 128 hold
two thirds of the energy. Sending ``L = U·Vᵀ`` and coding ``x − L`` is unbiased whenever the rounding of ``x − L`` is,
because the decoder adds the same ``L`` back. Its arithmetic is on integers below 2^53: sums in float64
are exact, and every platform gets the same ``L`` whatever their order.
(Subspace iteration as in PowerSGD, Vogels et al., NeurIPS 2019, and Halko et al., SIAM Review 2011.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fl_mobile.kernels.compiled import compiled

BASIS_BITS = 14
MAX_COLUMNS = 1 << 20
"""Keeps the sums of squares in `basis` inside 64 bits."""

MIN_SIDE = 16
_MANY_ROWS = 2048
_EXTRA = 2
_AT_ONCE = 4
_EVERY, _ENOUGH = 4, 256
"""The first iteration does with every fourth of so many rows."""

_MAX_STEPS = 1 << 18
"""At steps finer than that levels could overflow, and low rank has nothing to offer."""

_MOST_ENERGY = 1e30
"""Above it the squares of a matrix leave float32."""

_WORTH = 0.15
"""A direction is kept if its energy is above this many factor steps² for every coefficient it costs."""


@compiled
def basis(levels: np.ndarray) -> np.ndarray:
    """Returns the columns of ``V`` scaled to length 2^14, ``int64[C, r]``; a zero column stays zero.

    In integers, for a column ``v`` of levels: ``n = ⌊√(2^16·Σ v²)⌋``, entry ``⌊(v·2^22 + ⌊n/2⌋) / n⌋``.
    """
    columns, rank = levels.shape
    squares, out = np.zeros(rank, np.int64), np.zeros((columns, rank), np.int64)
    for c in range(columns):
        for k in range(rank):
            squares[k] += levels[c, k] * levels[c, k]
    for k in range(rank):
        norm = _norm(squares[k])
        if norm:
            for c in range(columns):
                out[c, k] = ((levels[c, k] << (BASIS_BITS + 8)) + (norm >> 1)) // norm
    return out


@compiled
def _norm(square: int) -> int:
    """Returns ``⌊√(2^16·square)⌋`` of a number below 2^61: 256 times its root, and then the last eight bits."""
    root = np.int64(math.sqrt(square))
    while root * root > square:
        root -= 1
    while (root + 1) * (root + 1) <= square:
        root += 1
    low, rest = np.int64(0), (square - root * root) << 16
    for bit in range(7, -1, -1):
        longer = low + (1 << bit)
        if longer * (512 * root + longer) <= rest:
            low = longer
    return 256 * root + low


class Directions(NamedTuple):
    """Along what a matrix moves most.

    Attributes:
        levels: ``int64[C, r]``: V in factor steps.
        space: ``float32[k, C]``: orthonormal rows among whose sums V nearly lies.
        along: ``float32[R, k]``: the matrix times these.
        sums: ``float64[2]``: Σ|x| and Σx² of the matrix.
    """

    levels: np.ndarray
    space: np.ndarray
    along: np.ndarray
    sums: np.ndarray


def directions(matrix: np.ndarray, factor_step: float, max_rank: int) -> Directions | None:
    """Returns the directions that are worth their coefficients, None if there are none.

    Args:
        matrix: ``float32[R, C]``.
        factor_step: The step of the coefficients.
        max_rank: At most so many directions.
    """
    rows, columns = matrix.shape
    limit = min(max_rank, min(rows, columns) // 2)
    if min(rows, columns) < MIN_SIDE or columns > MAX_COLUMNS or limit < 1:
        return None
    start, sums = _first_look(matrix, min(limit + _EXTRA, columns))
    bar = _WORTH * (rows + columns) * factor_step**2
    if not bar <= sums[1] < _MOST_ENERGY:
        return None
    busy = matrix
    if rows > _MANY_ROWS:  # the directions are those of the rows that move most
        energy = np.einsum("ij,ij->i", matrix, matrix)
        busy = matrix[np.sort(np.argpartition(energy, rows - _MANY_ROWS)[-_MANY_ROWS:])]
    singular, right, space, along = _leading(busy, start)
    rank = min(int(np.count_nonzero(np.square(singular) > bar)), limit)
    if not rank or float(singular[0]) > _MAX_STEPS * factor_step:
        return None
    levels = np.rint(right[:, :rank] / (singular[:rank] * factor_step)).astype(np.int64)
    return Directions(levels, space, along if busy is matrix else matrix @ space.T, sums)


@compiled
def _first_look(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``float32[count, C]``, orthonormal rows that are sums of every ``count``-th row of ``float32[R, C]``.

    Beside them Σ|x| and Σx² of all, ``float64[2]``.
    """
    rows, columns = matrix.shape
    groups, sums = np.zeros((count, columns), np.float32), np.zeros((2, columns))
    for i in range(rows):
        group = groups[i % count]
        for j in range(columns):
            value = matrix[i, j]
            group[j] += value
            sums[0, j] += abs(value)
            sums[1, j] += np.float64(value) * value
    return _orthonormal(groups), np.array([sums[0].sum(), sums[1].sum()])


@compiled
def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Returns rows that span what those of ``float32[count, C]`` do: Gram and Schmidt; nothing of nothing."""
    count, columns = rows.shape
    exact = np.zeros((count + _AT_ONCE, columns))
    exact[:count] = rows
    for k in range(count):
        row, square = exact[k], 0.0
        for j in range(columns):
            square += row[j] * row[j]
        if square:
            times = 1 / math.sqrt(square)
            for j in range(columns):
                row[j] *= times
        for other in range(k + 1, count, _AT_ONCE):  # four at once: sums wait for the addition before
            one, two, three, four = exact[other], exact[other + 1], exact[other + 2], exact[other + 3]
            a = b = c = d = 0.0
            for j in range(columns):
                a += row[j] * one[j]
                b += row[j] * two[j]
                c += row[j] * three[j]
                d += row[j] * four[j]
            for j in range(columns):
                one[j] -= a * row[j]
                two[j] -= b * row[j]
                three[j] -= c * row[j]
                four[j] -= d * row[j]
    return exact[:count].astype(np.float32)


def _leading(matrix: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns about the leading singular values and their right vectors times them squared, ``float64[C, k]``.

    Beside them the space that those were looked for in, and the matrix along it, as in `Directions`.

    Two subspace iterations from ``float32[k, C]``, orthonormal rows, the first by every fourth row of the matrix alone.
    Large products are in float32, which is twice as fast and exact enough for what is rounded to levels afterwards.
    """
    some = matrix[::_EVERY] if len(matrix) >= _ENOUGH else matrix
    space = _orthonormal((some @ start.T).T @ some)
    along = matrix @ space.T
    squared = (along.T @ matrix).astype(np.float64)
    fourth, turn = np.linalg.eigh(squared @ squared.T)
    return np.sqrt(np.sqrt(np.maximum(fourth[::-1], 0.0))), squared.T @ turn[:, ::-1], space, along


def coefficients(found: Directions, right: np.ndarray) -> np.ndarray:
    """Returns the ``U`` that brings ``U·Vᵀ`` about closest to the matrix, ``float32[R, r]``.

    Args:
        found: In the matrix.
        right: `basis` of its levels.
    """
    return found.along @ (found.space @ _dual(right))


@compiled
def _dual(right: np.ndarray) -> np.ndarray:
    """Returns ``V·(VᵀV)⁻¹``, ``float32[C, r]``: Gauss–Jordan, which needs no pivots here.

    Args:
        right: ``int64[C, r]``, V in units of 2^−14.
    """
    columns, rank = right.shape
    exact = right * 2.0**-BASIS_BITS
    gram = np.zeros((rank, 2 * rank))
    for c in range(columns):
        for i in range(rank):
            for j in range(rank):
                gram[i, j] += exact[c, i] * exact[c, j]
    for i in range(rank):
        gram[i, i] += 1e-9
        gram[i, rank + i] = 1.0
    for i in range(rank):
        gram[i] /= gram[i, i]
        for j in range(rank):
            if j != i:
                gram[j] -= gram[j, i] * gram[i]
    out, sums = np.empty((columns, rank), np.float32), np.empty(rank)
    for c in range(columns):
        sums[:] = 0.0
        for i in range(rank):
            for j in range(rank):
                sums[j] += exact[c, i] * gram[i, rank + j]
        for j in range(rank):
            out[c, j] = sums[j]
    return out
