"""Where a value is coded: rows and columns of like activity share a context, contexts are coded one after another.

A kernel of shape ``(…, C)`` is seen as a matrix with ``C`` columns (output units) and ``size / C`` rows. Its mean
level ``T`` and the class of each row and column say how busy a place is expected to be:

```
context = clip(T + row class − 12 + column class − 12, 1, 31)          one step is a factor of two
```
Class 0 means nothing but zeros: such places are not coded at all. A tensor without row (column) classes has the
neutral class 12 everywhere. Places are then ordered by (context, tensor, row class, column class) and, within such a
*block*, by row and column: the order in which gaps between non-zeros are counted. Mapping a non-zero into that order
and back is arithmetic on its block, so the work is proportional to the non-zeros, not to the tensors.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from fl_mobile.kernels.compiled import compiled

CONTEXTS = 32
CLASSES = 32
NEUTRAL = 12
SIGN_CLASSES = 7
"""0: signs are coin tosses; 1–3 mostly plus and 4–6 mostly minus, with rising certainty."""

ROW_CLASSES, COLUMN_CLASSES, SIGNS = 4, 2, 1
"""Bits of `Plans.flags`."""


class Shapes(NamedTuple):
    """The tensors as matrices.

    Attributes:
        rows: ``int64[t]``.
        columns: ``int64[t]``.
        offset: ``int64[t + 1]``: where each begins with all tensors laid end to end.
        row_at: ``int64[t + 1]``: where its rows begin with the rows of all laid end to end.
        column_at: The same for columns.
    """

    rows: np.ndarray
    columns: np.ndarray
    offset: np.ndarray
    row_at: np.ndarray
    column_at: np.ndarray


class Plans(NamedTuple):
    """How each tensor is coded.

    Attributes:
        level: ``int64[t]``: 0 if the tensor is all zeros, else 1 … 31: the context of a flat tensor.
        flags: ``int64[t]``: sum of `ROW_CLASSES`, `COLUMN_CLASSES` and `SIGNS`, whichever it has.
        rows: ``uint8[rows of all]`` classes; not read where there are none.
        columns: ``uint8[columns of all]``.
        signs: ``uint8[columns of all]``: sign classes of the columns.
    """

    level: np.ndarray
    flags: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    signs: np.ndarray


class Layout(NamedTuple):
    """The order of places for given shapes and plans; the same on both ends.

    Attributes:
        slots: ``int64[32]``: how many places each context has.
        start: ``int64[blocks]``: first place of each block, in coding order, from the start of the first.
        tensor: ``int64[blocks]``.
        pair: ``int64[blocks]``: row class · 32 + column class; 0 for a tensor that is one block.
        block: ``int64[tables, 1024]``: pair → block, of tensors with classes; −1 where there is none.
        table: ``int64[t]``: row of ``block``, or −1 − block of a tensor that is one.
        row_rank: ``int64[rows of all]``: place of a row among those of its class.
        row_order: ``int64[rows of all]``: rows of a tensor by class.
        row_count: ``int64[t, 32]``: rows of each class.
        column_rank: The same for columns.
        column_order: The same for columns.
        column_count: The same for columns.
    """

    slots: np.ndarray
    start: np.ndarray
    tensor: np.ndarray
    pair: np.ndarray
    block: np.ndarray
    table: np.ndarray
    row_rank: np.ndarray
    row_order: np.ndarray
    row_count: np.ndarray
    column_rank: np.ndarray
    column_order: np.ndarray
    column_count: np.ndarray


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns rows and columns of a tensor; ``(1, size)`` for vectors and whatever has no second dimension.

    >>> matrix_shape((3, 3, 32, 64)), matrix_shape((10,)), matrix_shape(())
    ((288, 64), (1, 10), (1, 1))
    """
    size = math.prod(shape)
    if len(shape) < 2 or shape[-1] < 2 or size <= shape[-1]:
        return 1, size
    return size // shape[-1], shape[-1]


@compiled
def is_matrix(shapes: Shapes, tensor: int) -> bool:
    """Whether rows and columns can tell values apart."""
    return shapes.rows[tensor] > 1 and shapes.columns[tensor] > 1


@compiled
def quotient(number: int, by: int) -> int:
    """Returns ``⌊number / by⌋`` of whole numbers, 0 ≤ number < 2^53: exact, and a division of floats is the faster one.

    >>> [int(quotient(number, 10)) for number in (0, 9, 10, 2**53 - 1)]
    [0, 0, 1, 900719925474099]
    """
    return np.int64(number / by)


@functools.lru_cache(maxsize=64)  # every packet asks, and a run has one spec
def shapes_of(matrices: tuple[tuple[int, int], ...]) -> Shapes:
    """Returns the record of rows and columns; nobody writes into it."""
    table = np.array(matrices, np.int64).reshape(-1, 2)
    return lined_up(np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1]))


@compiled
def lined_up(rows: np.ndarray, columns: np.ndarray) -> Shapes:
    """Returns the record of ``int64[t]`` rows and columns."""
    return Shapes(rows, columns, _sums(rows * columns), _sums(rows), _sums(columns))


@compiled
def _sums(numbers: np.ndarray) -> np.ndarray:
    sums = np.zeros(len(numbers) + 1, np.int64)
    sums[1:] = np.cumsum(numbers)
    return sums


@compiled
def lay_out(shapes: Shapes, plans: Plans) -> Layout:
    """Returns the order of places."""
    tensors = len(shapes.rows)
    row_rank, row_order, row_count = _axis(shapes.row_at, plans.rows, plans, ROW_CLASSES)
    column_rank, column_order, column_count = _axis(shapes.column_at, plans.columns, plans, COLUMN_CLASSES)
    table, in_context, tables = np.zeros(tensors, np.int64), np.zeros(CONTEXTS + 1, np.int64), 0
    for t in range(tensors):
        if not plans.level[t]:
            continue
        if not plans.flags[t] & (ROW_CLASSES | COLUMN_CLASSES):
            in_context[plans.level[t] + 1] += 1
            continue
        table[t] = tables
        tables += 1
        for a in range(1, CLASSES):
            for b in range(1, CLASSES):
                if row_count[t, a] and column_count[t, b]:
                    in_context[context_of(plans.level[t], a, b) + 1] += 1
    begin = np.cumsum(in_context)
    blocks = begin[CONTEXTS]
    tensor, pair, size = np.empty(blocks, np.int64), np.zeros(blocks, np.int64), np.empty(blocks, np.int64)
    block, slots = np.full((tables, CLASSES * CLASSES), -1, np.int64), np.zeros(CONTEXTS, np.int64)
    for t in range(tensors):
        if not plans.level[t]:
            continue
        if not plans.flags[t] & (ROW_CLASSES | COLUMN_CLASSES):
            at = begin[plans.level[t]]
            begin[plans.level[t]] += 1
            table[t], tensor[at], size[at] = -1 - at, t, shapes.rows[t] * shapes.columns[t]
            slots[plans.level[t]] += size[at]
            continue
        for a in range(1, CLASSES):
            for b in range(1, CLASSES):
                if row_count[t, a] and column_count[t, b]:
                    context = context_of(plans.level[t], a, b)
                    at = begin[context]
                    begin[context] += 1
                    tensor[at], pair[at], size[at] = t, a * CLASSES + b, row_count[t, a] * column_count[t, b]
                    block[table[t], pair[at]] = at
                    slots[context] += size[at]
    start = np.cumsum(size) - size
    return Layout(
        slots, start, tensor, pair, block, table,
        row_rank, row_order, row_count, column_rank, column_order, column_count,
    )  # fmt: skip


@compiled
def context_of(level: int, row_class: int, column_class: int) -> int:
    """Returns the context of a block."""
    return min(max(level + row_class + column_class - 2 * NEUTRAL, 1), CONTEXTS - 1)


@compiled
def _axis(at: np.ndarray, classes: np.ndarray, plans: Plans, flag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rank and order of all rows (or columns), and how many there are of each class."""
    tensors = len(at) - 1
    rank, order = np.empty(at[tensors], np.int64), np.empty(at[tensors], np.int64)
    count = np.zeros((tensors, CLASSES), np.int64)
    for t in range(tensors):
        if not plans.level[t] or not plans.flags[t] & (ROW_CLASSES | COLUMN_CLASSES):
            continue
        length = at[t + 1] - at[t]
        if not plans.flags[t] & flag:
            count[t, NEUTRAL] = length
            for i in range(length):
                rank[at[t] + i] = order[at[t] + i] = i
            continue
        for i in range(length):
            which = classes[at[t] + i]
            rank[at[t] + i] = count[t, which]
            count[t, which] += 1
        first = first_of(count, t)
        for i in range(length):
            order[at[t] + first[classes[at[t] + i]] + rank[at[t] + i]] = i
    return rank, order, count


@compiled
def first_of(count: np.ndarray, tensor: int) -> np.ndarray:
    """Returns ``int64[32]``: where each class begins in the order of a tensor's rows (or columns)."""
    return np.cumsum(count[tensor]) - count[tensor]


@compiled
def find_blocks(positions: np.ndarray, shapes: Shapes, plans: Plans, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns the block of each position and its place within it, ``int64[n]`` each; −1 where a class says zero.

    Args:
        positions: ``int64[n]`` rising positions in all tensors laid end to end.
    """
    block, inside = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
    firsts = np.searchsorted(positions, shapes.offset)
    for t in range(len(shapes.rows)):
        first, last, begin = firsts[t], firsts[t + 1], shapes.offset[t]
        if not plans.level[t]:
            block[first:last] = inside[first:last] = -1
            continue
        if layout.table[t] < 0:
            block[first:last], inside[first:last] = -1 - layout.table[t], positions[first:last] - begin
            continue
        by_rows, by_columns = plans.flags[t] & ROW_CLASSES, plans.flags[t] & COLUMN_CLASSES
        columns, of_pair, width = shapes.columns[t], layout.block[layout.table[t]], layout.column_count[t]
        down, down_rank = plans.rows[shapes.row_at[t] :], layout.row_rank[shapes.row_at[t] :]
        across, across_rank = plans.columns[shapes.column_at[t] :], layout.column_rank[shapes.column_at[t] :]
        row = base = np.int64(-1)  # the row of the last position, and where it begins
        a = above = np.int64(0)
        for i in range(first, last):
            local = positions[i] - begin
            if row < 0 or local - base >= columns:
                row = quotient(local, columns)
                base = row * columns
                a = (np.int64(down[row]) if by_rows else NEUTRAL) * CLASSES
                above = down_rank[row]
            column = local - base
            b = np.int64(across[column]) if by_columns else NEUTRAL
            block[i] = of_pair[a + b]
            inside[i] = above * width[b] + across_rank[column]
    return block, inside


@compiled
def to_positions(places: np.ndarray, shapes: Shapes, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions in all tensors laid end to end, ``int64[n]``, and the tensor of each, for rising places."""
    positions, tensor = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    block, end = -1, np.int64(0)
    t = row_first = column_first = width = np.int64(0)
    for i in range(len(places)):
        while places[i] >= end:
            block += 1
            t, a, b = layout.tensor[block], layout.pair[block] // CLASSES, layout.pair[block] % CLASSES
            if a:
                width = layout.column_count[t, b]
                end = layout.start[block] + layout.row_count[t, a] * width
                row_first = shapes.row_at[t] + first_of(layout.row_count, t)[a]
                column_first = shapes.column_at[t] + first_of(layout.column_count, t)[b]
            else:
                width = np.int64(0)
                end = layout.start[block] + shapes.rows[t] * shapes.columns[t]
        inside = places[i] - layout.start[block]
        if width:
            down = quotient(inside, width)
            row = layout.row_order[row_first + down]
            inside = row * shapes.columns[t] + layout.column_order[column_first + inside - down * width]
        positions[i], tensor[i] = shapes.offset[t] + inside, t
    return positions, tensor
