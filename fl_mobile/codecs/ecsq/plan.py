"""The encoder's choices of row, column and sign classes; floats are welcome here, because the choices travel."""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.codecs.ecsq.layout import (
    CLASSES,
    COLUMN_CLASSES,
    CONTEXTS,
    NEUTRAL,
    ROW_CLASSES,
    SIGN_CLASSES,
    SIGNS,
    Plans,
    Shapes,
    is_matrix,
    quotient,
)
from fl_mobile.kernels.compiled import compiled

_FEW = 24
"""Below this many non-zeros no tensor has ever earned its classes back."""

_MANY = 1000
"""Below this many, rows or columns alone are not tried."""

_MAGNITUDES = 16
_SMALL = 64
"""Sums below it are looked up where classes are chosen."""

_LOG2_E = 1.4426950408889634
_POWERS = np.exp2(np.arange(CLASSES + 1.0) - NEUTRAL)


@compiled
def flat_plans(positions: np.ndarray, magnitudes: np.ndarray, shapes: Shapes) -> Plans:
    """Returns plans without any classes: a tensor's context is its own mean magnitude, to a factor of two."""
    plans, firsts = _no_plans(shapes), np.searchsorted(positions, shapes.offset)
    for t in range(len(shapes.rows)):
        total = magnitudes[firsts[t] : firsts[t + 1]].sum()
        if total:
            plans.level[t] = _level(total / (shapes.rows[t] * shapes.columns[t]))
    return plans


@compiled
def class_plans(positions: np.ndarray, magnitudes: np.ndarray, negative: np.ndarray, shapes: Shapes) -> Plans:
    """Returns for every tensor the cheapest of {zero, flat, rows, columns, both}, with sign classes where they pay.

    Args:
        positions: ``int64[n]`` rising positions of the non-zeros in all tensors laid end to end.
        magnitudes: ``int64[n]`` ≥ 1.
        negative: ``bool[n]``.
        shapes: Of all tensors.
    """
    plans, firsts = _no_plans(shapes), np.searchsorted(positions, shapes.offset)
    for t in range(len(shapes.rows)):
        first, last = firsts[t], firsts[t + 1]
        if last > first:
            local = positions[first:last] - shapes.offset[t]
            _plan_tensor(local, magnitudes[first:last], negative[first:last], shapes, plans, t)
    return plans


@compiled
def _no_plans(shapes: Shapes) -> Plans:
    tensors, rows, columns = len(shapes.rows), shapes.row_at[-1], shapes.column_at[-1]
    return Plans(
        np.zeros(tensors, np.int64),
        np.zeros(tensors, np.int64),
        np.empty(rows, np.uint8),
        np.empty(columns, np.uint8),
        np.empty(columns, np.uint8),
    )


@compiled
def _plan_tensor(
    local: np.ndarray, magnitudes: np.ndarray, negative: np.ndarray, shapes: Shapes, plans: Plans, t: int
) -> None:
    rows, columns, total = shapes.rows[t], shapes.columns[t], magnitudes.sum()
    plans.level[t] = _level(total / (rows * columns))
    if not is_matrix(shapes, t) or len(local) < _FEW:
        return
    row, column = np.empty(len(local), np.int64), np.empty(len(local), np.int64)
    for i in range(len(local)):
        row[i] = quotient(local[i], columns)
        column[i] = local[i] - row[i] * columns
    across = plans.columns[shapes.column_at[t] : shapes.column_at[t + 1]]
    down = plans.rows[shapes.row_at[t] : shapes.row_at[t + 1]]
    counts = np.zeros((2, CLASSES), np.int64)  # rows and columns of each class
    _classify(column, magnitudes, total, across, counts[1])
    if rows > 2 * len(local):  # two rows to a non-zero: naming their classes would cost more than it tells
        down[:] = 0
        choices = (0, 0, COLUMN_CLASSES, COLUMN_CLASSES)
    else:
        _classify(row, magnitudes, total, down, counts[0])
        choices = (0, COLUMN_CLASSES, ROW_CLASSES, ROW_CLASSES | COLUMN_CLASSES)
        if len(local) <= _MANY:
            choices = (0, 0, 0, ROW_CLASSES | COLUMN_CLASSES)
    marks = _marks(row, column, magnitudes, down, across)
    best, tried = np.inf, -1
    for use in choices:
        if use == tried:
            continue
        tried = use
        bits = _cost(marks, counts, (rows, columns), use)
        if bits < best:
            best, plans.flags[t] = bits, use
    if _classify_signs(column, negative, plans.signs[shapes.column_at[t] : shapes.column_at[t + 1]]):
        plans.flags[t] |= SIGNS


@compiled
def _level(mean: float) -> int:
    return min(max(int(np.rint(math.log2(mean))) + 20, 1), CONTEXTS - 1)


@compiled
def _classify(which: np.ndarray, magnitudes: np.ndarray, total: int, classes: np.ndarray, count: np.ndarray) -> None:
    """Sets the class of each row (or column), ``uint8[n]``, from the sum of magnitudes in it.

    The nearest power of two first; then the neighbour that costs least in all, counting the class itself, if a row's
    sum is taken for Poisson: a rare class must be worth its name.

    Args:
        which: ``int64[n]``: row (or column) of each non-zero.
        count: ``int64[32]``, zeros; how many there are of each class.
    """
    sums = np.zeros(len(classes), np.int64)
    for i in range(len(which)):
        sums[which[i]] += magnitudes[i]
    mean, small = total / len(classes), min(_SMALL, len(classes))
    often = np.zeros(small, np.int64)  # rows of one sum have one class, and most sums are small
    for i in range(len(classes)):
        if sums[i] < small:
            often[sums[i]] += 1
        else:
            count[_nearest(sums[i], mean)] += 1
    told = np.zeros(small, np.uint8)
    for number in range(1, small):
        if often[number]:
            told[number] = _nearest(number, mean)
            count[told[number]] += often[number]
    busy = len(classes) - often[0]
    price = math.log2(busy) - np.log2(count + 0.5)
    for number in range(1, small):
        if often[number]:
            told[number] = _cheapest(told[number], number, mean, price)
    count[:] = 0
    for i in range(len(classes)):
        if sums[i] < small:
            classes[i] = told[sums[i]]
        else:
            classes[i] = _cheapest(_nearest(sums[i], mean), sums[i], mean, price)
            count[classes[i]] += 1
    for number in range(small):
        count[told[number]] += often[number]


@compiled
def _nearest(number: int, mean: float) -> int:
    return min(max(int(np.rint(math.log2(number / mean) + NEUTRAL)), 1), CLASSES - 1)


@compiled
def _cheapest(first: int, number: int, mean: float, price: np.ndarray) -> int:
    """Returns the class at most one from the first that costs a row whose magnitudes add up to ``number`` least."""
    best, least = np.int64(first), np.inf
    for option in (np.int64(first), max(np.int64(first) - 1, 1), min(np.int64(first) + 1, CLASSES - 1)):
        cost = (_POWERS[option] * (mean * _LOG2_E) - number * (option - NEUTRAL)) + price[option]
        if cost < least:
            least, best = cost, option
    return best


@compiled
def _marks(
    row: np.ndarray, column: np.ndarray, magnitudes: np.ndarray, down: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """Returns how many non-zeros there are by class of row, class of column and magnitude − 1, ``int64[a, b, 16]``.

    Beside them the classes that the first two axes begin at.

    Args:
        row: ``int64[n]`` of each non-zero.
        column: ``int64[n]`` of each non-zero.
        magnitudes: ``int64[n]``.
        down: Class of each row.
        across: Class of each column.
    """
    low_row, low_column = np.int64(CLASSES), np.int64(CLASSES)
    for which in down:
        low_row = min(low_row, np.int64(which) or CLASSES)
    for which in across:
        low_column = min(low_column, np.int64(which) or CLASSES)
    low_row = 0 if low_row == CLASSES else low_row  # rows without classes are all of class 0
    marks = np.zeros((down.max() - low_row + 1, across.max() - low_column + 1, _MAGNITUDES), np.int64)
    for i in range(len(row)):
        marks[down[row[i]] - low_row, across[column[i]] - low_column, min(magnitudes[i], _MAGNITUDES) - 1] += 1
    return marks, low_row, low_column


@compiled
def _cost(found: tuple[np.ndarray, int, int], counts: np.ndarray, size: tuple[int, int], use: int) -> float:
    """Returns the bits of a tensor with row and column classes used or not: positions, magnitudes and the classes.

    Args:
        found: `_marks`.
        counts: ``int64[2, 32]``: rows, then columns, of each class.
        size: Rows and columns.
        use: `ROW_CLASSES`, `COLUMN_CLASSES`, both or neither.
    """
    marks, low_row, low_column = found
    bits, by_rows, by_columns = 0.0, bool(use & ROW_CLASSES), bool(use & COLUMN_CLASSES)
    slots = np.zeros(2 * CLASSES - 1, np.int64)  # by the sum of both classes
    row_count, column_count = np.zeros(CLASSES, np.int64), np.zeros(CLASSES, np.int64)
    if by_rows:
        bits += _name_classes(counts[0], row_count)
    else:
        row_count[0] = size[0]
    if by_columns:
        bits += _name_classes(counts[1], column_count)
    else:
        column_count[0] = size[1]
    for a in range(CLASSES):
        if row_count[a]:
            for b in range(CLASSES):
                slots[a + b] += row_count[a] * column_count[b]
    table = np.zeros((2 * CLASSES - 1, _MAGNITUDES), np.int64)
    for a in range(len(marks)):
        for b in range(marks.shape[1]):
            table[(low_row + a if by_rows else 0) + (low_column + b if by_columns else 0)] += marks[a, b]
    # Σ over contexts of slots·H(marked/slots) for where, marked·H(magnitudes) for what, and their counts and tables.
    for context in range(2 * CLASSES - 1):
        if slots[context]:
            marked = table[context].sum()
            bits += _xlogx(slots[context]) - _xlogx(slots[context] - marked)
            if marked:
                bits += 16
                for count in table[context]:
                    bits -= _xlogx(count)
                    bits += 3 * int(count > 0)
    return bits


@compiled
def _name_classes(named: np.ndarray, count: np.ndarray) -> float:
    """Copies how many there are of each class but 0, ``int64[32]``, and returns the bits that naming them all takes."""
    count[1:] = named[1:]
    return _entropy(named) + 5 * np.count_nonzero(named)


@compiled
def _classify_signs(column: np.ndarray, negative: np.ndarray, classes: np.ndarray) -> bool:
    """Sets the sign classes of the columns, ``uint8[C]``, and returns whether they pay.

    In a dense or convolution kernel after ReLU the inputs are ≥ 0, so one example moves all weights of an output unit
    the same way, and few examples leave most signs of a column alike.
    """
    count, minus = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    for i in range(len(column)):
        count[column[i]] += 1
        minus[column[i]] += negative[i]
    alike, all_of, members = np.zeros(4, np.int64), np.zeros(4, np.int64), np.zeros(SIGN_CLASSES, np.int64)
    for c in range(len(classes)):
        most = max(minus[c], count[c] - minus[c])
        share = (most + 0.5) / (count[c] + 1) if count[c] else 0.0
        sureness = int(share > 0.65) + int(share > 0.85) + int(share > 0.96)
        alike[sureness] += most
        all_of[sureness] += count[c]
        classes[c] = sureness + 3 * int(sureness > 0 and 2 * minus[c] > count[c])
        members[classes[c]] += 1
    coded = _entropy(members) + 50.0
    for sureness in range(1, 4):
        whole, same = all_of[sureness], alike[sureness]
        coded += _xlogx(whole) - _xlogx(same) - _xlogx(whole - same)
    return coded < all_of[1:].sum()


@compiled
def _xlogx(count: int) -> float:
    return count * math.log2(count) if count > 1 else 0.0


@compiled
def _entropy(counts: np.ndarray) -> float:
    bits = _xlogx(counts.sum())
    for count in counts:
        bits -= _xlogx(count)
    return bits
