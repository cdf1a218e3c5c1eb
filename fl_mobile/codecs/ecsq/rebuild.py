"""Levels back to values: what a payload says, as the float32 numbers that both ends get to the bit."""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq.factors import shifted
from fl_mobile.codecs.ecsq.layout import Shapes, quotient
from fl_mobile.codecs.ecsq.lowrank import basis
from fl_mobile.codecs.ecsq.records import MAX_RANK, Factors, Levels
from fl_mobile.kernels.compiled import compiled

_MAX = float(np.finfo(np.float32).max)
_AT_ONCE = 4


@compiled
def rebuild(
    levels: Levels,
    factors: Factors,
    shapes: Shapes,
    steps: tuple[float, int, int],
    scale: float,
    values: np.ndarray,
) -> None:
    """Sets the values of all tensors end to end: low-rank part, if there is one, and levels.

    Args:
        levels: Of the tensors and of their factors, in any order.
        factors: As they were read.
        shapes: Of the tensors.
        steps: Δ, and the shifts of level 1 and of those above.
        scale: `scale_of` the factors.
        values: ``float32[n]``, zeros.
    """
    step, first_shift, second_shift = steps
    total = shapes.offset[-1]
    lefts, rights, begin = _low_rank(levels, factors, shapes)
    sums = np.empty(np.max(shapes.columns) if len(lefts) else 0)
    used, times = np.zeros(MAX_RANK + _AT_ONCE, np.int64), np.zeros(MAX_RANK + _AT_ONCE)
    for t in range(len(factors.ranks)):
        rank, rows, columns = factors.ranks[t], shapes.rows[t], shapes.columns[t]
        if not rank:
            continue
        left = lefts[begin[t, 0] : begin[t, 0] + rows * rank].reshape(rows, rank)
        right = rights[begin[t, 1] : begin[t, 1] + columns * rank].reshape(rank, columns)
        for i in range(rows):
            count = 0
            for k in range(rank):
                used[count], times[count] = k, left[i, k]
                count += left[i, k] != 0
            if not count:
                continue
            used[count : count + _AT_ONCE], times[count : count + _AT_ONCE] = 0, 0.0
            sums[:columns] = 0.0
            for k in range(0, count, _AT_ONCE):  # four at once: a quarter of the ways to memory and back
                a, b, c, d = times[k], times[k + 1], times[k + 2], times[k + 3]
                one, two, three, four = right[used[k]], right[used[k + 1]], right[used[k + 2]], right[used[k + 3]]
                for j in range(columns):
                    sums[j] += (a * one[j] + b * two[j]) + (c * three[j] + d * four[j])
            row = values[shapes.offset[t] + i * columns : shapes.offset[t] + (i + 1) * columns]
            for j in range(columns):
                row[j] = min(max(sums[j] * scale, -_MAX), _MAX)
    tensor = 0
    for i in range(len(levels.positions)):
        at, magnitude = levels.positions[i], levels.magnitudes[i]
        if at >= total:
            continue
        size = 256 * magnitude + (first_shift if magnitude == 1 else second_shift)
        value = (-size if levels.negative[i] else size) * (step / 256)
        if len(lefts):
            while at >= shapes.offset[tensor + 1]:
                tensor += 1
            while at < shapes.offset[tensor]:
                tensor -= 1
            rank, columns, low = factors.ranks[tensor], shapes.columns[tensor], 0.0
            inside = at - shapes.offset[tensor]
            above = quotient(inside, columns) if rank else 0
            for k in range(rank):
                factor = rights[begin[tensor, 1] + k * columns + inside - above * columns]
                low += lefts[begin[tensor, 0] + above * rank + k] * factor
            value += low * scale
        values[at] = min(max(value, -_MAX), _MAX)


@compiled
def _low_rank(levels: Levels, factors: Factors, shapes: Shapes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns U, row by row, and V, column by column, of every tensor that has them, whole numbers in ``float64[m]``.

    Also where they begin, ``int64[t, 2]``.
    """
    tensors, total = len(factors.ranks), shapes.offset[-1]
    begin, sizes = np.zeros((tensors, 2), np.int64), np.zeros(2, np.int64)
    for t in range(tensors):
        begin[t] = sizes
        sizes[0] += shapes.rows[t] * factors.ranks[t]
        sizes[1] += shapes.columns[t] * factors.ranks[t]
    numbers = np.zeros(sizes[0] + sizes[1], np.int64)  # the levels as they lie on the wire: U, V, U, V, …
    for i in range(len(levels.positions)):
        if levels.positions[i] >= total:
            numbers[levels.positions[i] - total] = -levels.magnitudes[i] if levels.negative[i] else levels.magnitudes[i]
    lefts, rights, at = np.empty(sizes[0]), np.empty(sizes[1]), 0
    for t in range(tensors):
        rank, columns = factors.ranks[t], shapes.columns[t]
        if not rank:
            continue
        for i in range(shapes.rows[t] * rank):
            lefts[begin[t, 0] + i] = shifted(numbers[at + i], factors.first_shift, factors.second_shift)
        at += shapes.rows[t] * rank
        right = basis(numbers[at : at + columns * rank].reshape(columns, rank))
        for k in range(rank):
            for j in range(columns):
                rights[begin[t, 1] + k * columns + j] = right[j, k]
        at += columns * rank
    return lefts, rights, begin
