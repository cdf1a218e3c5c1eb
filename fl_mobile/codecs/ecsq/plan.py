"""The encoder's choices of row, column and sign classes; floats are welcome here, because the choices travel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fl_mobile.codecs.ecsq.layout import CLASSES, CONTEXTS, NEUTRAL, TensorPlan, divide, is_matrix

_FEW = 24
"""Below this many non-zeros no tensor has ever earned its classes back."""

_MANY = 1000
"""Below this many, rows or columns alone are not tried."""

_CHOICES: tuple[tuple[bool, bool], ...] = ((False, False), (False, True), (True, False), (True, True))
_MAGNITUDES = 16
_SIGN_BORDERS = np.array([0.65, 0.85, 0.96])
_LOG2_E = 1.4426950408889634
_NEIGHBOURS = np.array([[0], [-1], [1]])
_POWERS = np.exp2(np.arange(CLASSES + 1.0) - NEUTRAL)


def flat_plans(
    positions: np.ndarray, magnitudes: np.ndarray, shapes: Sequence[tuple[int, int]], offsets: np.ndarray
) -> list[TensorPlan]:
    """Returns plans without any classes: a tensor's context is its own mean magnitude, to a factor of two."""
    cuts = np.searchsorted(positions, offsets)
    plans = []
    for index, (rows, columns) in enumerate(shapes):
        total = int(magnitudes[cuts[index] : cuts[index + 1]].sum())
        plans.append(TensorPlan(_level(total / (rows * columns)) if total else 0))
    return plans


def flat_bits(positions: np.ndarray, shapes: Sequence[tuple[int, int]], offsets: np.ndarray) -> float:
    """Returns what positions and signs take without classes; magnitudes come on top."""
    slots = np.array([rows * columns for rows, columns in shapes])
    marked = np.diff(np.searchsorted(positions, offsets))
    return float((_xlogx(slots) - _xlogx(marked) - _xlogx(slots - marked) + marked).sum())


def class_plans(
    positions: np.ndarray,
    magnitudes: np.ndarray,
    negative: np.ndarray,
    shapes: Sequence[tuple[int, int]],
    offsets: np.ndarray,
) -> list[TensorPlan]:
    """Returns for every tensor the cheapest of {zero, flat, rows, columns, both}, with sign classes where they pay.

    Args:
        positions: ``int64[n]`` rising positions of the non-zeros in all tensors laid end to end.
        magnitudes: ``int64[n]`` ≥ 1.
        negative: ``bool[n]``.
        shapes: Rows and columns of each tensor.
        offsets: ``int64[tensors + 1]`` where each tensor begins.
    """
    cuts = np.searchsorted(positions, offsets)
    plans = []
    for index, shape in enumerate(shapes):
        part = slice(cuts[index], cuts[index + 1])
        local = positions[part] - offsets[index]
        plans.append(_plan_tensor(local, magnitudes[part], negative[part], shape))
    return plans


def _plan_tensor(local: np.ndarray, magnitudes: np.ndarray, negative: np.ndarray, shape: tuple[int, int]) -> TensorPlan:
    if not len(local):
        return TensorPlan(0)
    rows, columns = shape
    total = int(magnitudes.sum())
    level = _level(total / (rows * columns))
    if not is_matrix(shape) or len(local) < _FEW:
        return TensorPlan(level)
    row, column = divide(local, columns)
    across = _classes(np.bincount(column, magnitudes, columns), total)
    small = np.minimum(magnitudes, _MAGNITUDES) - 1
    if rows > 2 * len(local):  # two rows to a non-zero: naming their classes would cost more than it tells
        down, choices = np.zeros(rows, np.uint8), _CHOICES[:2]
    else:
        down = _classes(np.bincount(row, magnitudes, rows), total)
        choices = _CHOICES if len(local) > _MANY else _CHOICES[::3]
    best, chosen = np.inf, _CHOICES[0]
    for use in choices:
        bits = _cost((down, row), (across, column), use, small)
        if bits < best:
            best, chosen = bits, use
    return TensorPlan(
        level, down if chosen[0] else None, across if chosen[1] else None, _sign_classes(column, negative, columns)
    )


def _level(mean: float) -> int:
    return min(max(round(math.log2(mean)) + 20, 1), CONTEXTS - 1)


def _classes(sums: np.ndarray, total: int) -> np.ndarray:
    """Returns the class of each row (or column), ``uint8[n]``, from the sum of magnitudes in it.

    The nearest power of two first; then the neighbour that costs least in all, counting the class itself, if a row's
    sum is taken for Poisson: a rare class must be worth its name.
    """
    classes = np.zeros(len(sums), np.uint8)
    busy = np.flatnonzero(sums)
    some, mean = sums[busy], total / len(sums)
    first = np.rint(np.log2(some / mean) + NEUTRAL).astype(np.int64)
    first = np.minimum(np.maximum(first, 1), CLASSES - 1)
    price = np.log2(len(busy)) - np.log2(np.bincount(first, minlength=CLASSES + 1) + 0.5)
    options = np.minimum(np.maximum(first + _NEIGHBOURS, 1), CLASSES - 1)
    cost = (_POWERS[options] * (mean * _LOG2_E) - some * (options - NEUTRAL)) + price[options]
    classes[busy] = options[np.argmin(cost, axis=0), np.arange(len(busy))]
    return classes


def _cost(
    down: tuple[np.ndarray, np.ndarray],
    across: tuple[np.ndarray, np.ndarray],
    use: tuple[bool, bool],
    small: np.ndarray,
) -> float:
    """Returns the bits of a tensor with row and column classes used or not: positions, magnitudes and the classes.

    Args:
        down: Class of each row, and row of each non-zero.
        across: The same for columns.
        use: Whether rows and columns have classes.
        small: Magnitude − 1 of each non-zero, at most 15.
    """
    histograms, bits, key = [], 0.0, small
    for (classes, which), used in zip((down, across), use, strict=True):
        if used:
            histogram = np.bincount(classes, minlength=CLASSES)
            bits += _entropy(histogram) + 5 * np.count_nonzero(histogram)
            histogram[0] = 0
            key = key + classes[which].astype(np.int64) * _MAGNITUDES
        else:
            histogram = np.array([len(classes)])
        histograms.append(histogram)
    slots = np.convolve(histograms[0], histograms[1])
    table = np.bincount(key, minlength=len(slots) * _MAGNITUDES).reshape(-1, _MAGNITUDES)
    marked = table.sum(axis=1)
    # Σ over contexts of slots·H(marked/slots) for where, marked·H(magnitudes) for what, and their counts and tables.
    entropy = _xlogx(slots).sum() - _xlogx(slots - marked).sum() - _xlogx(table[table > 1]).sum()
    return float(bits + entropy + 16 * np.count_nonzero(marked) + 3 * np.count_nonzero(table))


def _sign_classes(column: np.ndarray, negative: np.ndarray, columns: int) -> np.ndarray | None:
    """Returns sign classes of the columns, ``uint8[C]``, or None if they do not pay.

    In a dense or convolution kernel after ReLU the inputs are ≥ 0, so one example moves all weights of an output unit
    the same way, and few examples leave most signs of a column alike.
    """
    count = np.bincount(column, minlength=columns)
    minus = np.bincount(column[negative], minlength=columns)
    most = np.maximum(minus, count - minus)
    sureness = np.searchsorted(_SIGN_BORDERS, np.where(count > 0, (most + 0.5) / (count + 1), 0.0))
    alike, all_of = np.bincount(sureness, most, 4)[1:], np.bincount(sureness, count, 4)[1:]
    coded = float((_xlogx(all_of) - _xlogx(alike) - _xlogx(all_of - alike)).sum())
    classes = np.where(sureness == 0, 0, sureness + 3 * (2 * minus > count))
    side = _entropy(np.bincount(classes)) + 50
    return classes.astype(np.uint8) if coded + side < all_of.sum() else None


def _xlogx(counts: np.ndarray) -> np.ndarray:
    return counts * np.log2(np.maximum(counts, 1))


def _entropy(counts: np.ndarray) -> float:
    return float(_xlogx(counts.sum()) - _xlogx(counts).sum())
