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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTEXTS = 32
CLASSES = 32
NEUTRAL = 12
SIGN_CLASSES = 7
"""0: signs are coin tosses; 1–3 mostly plus and 4–6 mostly minus, with rising certainty."""


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is coded.

    Attributes:
        level: 0 if the tensor is all zeros, else 1 … 31: the context of a flat tensor.
        rows: ``uint8[R]`` row classes, or None.
        columns: ``uint8[C]`` column classes, or None.
        signs: ``uint8[C]`` sign classes of the columns, or None.
    """

    level: int
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    signs: np.ndarray | None = None


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns rows and columns of a tensor; ``(1, size)`` for vectors and whatever has no second dimension.

    >>> matrix_shape((3, 3, 32, 64)), matrix_shape((10,)), matrix_shape(())
    ((288, 64), (1, 10), (1, 1))
    """
    size = math.prod(shape)
    if len(shape) < 2 or shape[-1] < 2 or size <= shape[-1]:
        return 1, size
    return size // shape[-1], shape[-1]


def is_matrix(shape: tuple[int, int]) -> bool:
    """Whether rows and columns can tell values apart."""
    return shape[0] > 1 and shape[1] > 1


@dataclass(frozen=True)
class _Blocks:
    """All blocks in coding order, one entry each; places count from the start of the first block."""

    context: np.ndarray
    tensor: np.ndarray
    start: np.ndarray
    width: np.ndarray
    first_row: np.ndarray
    first_column: np.ndarray


class Layout:
    """The order of places for given shapes and plans; the same on both ends.

    Attributes:
        slots: ``int64[32]``: how many places each context has.
        sizes: Elements of each tensor.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], plans: Sequence[TensorPlan]) -> None:
        self.shapes, self.plans = shapes, plans
        sizes = np.array([r * c for r, c in shapes], np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._orders: list[np.ndarray] = []
        self._ordered = 0
        self._axes: dict[int, tuple[np.ndarray, ...]] = {}
        parts = [self._blocks_of(index) for index in range(len(plans)) if plans[index].level]
        columns = np.concatenate(parts, axis=1) if parts else np.zeros((7, 0), np.int64)
        columns = columns[:, np.argsort(columns[0], kind="stable")]  # by context; parts are in tensor and class order
        sizes_of_blocks = columns[4]
        starts = np.cumsum(sizes_of_blocks) - sizes_of_blocks
        self._blocks = _Blocks(columns[0], columns[1], starts, columns[5], columns[2], columns[3])
        self._order = np.concatenate(self._orders) if self._orders else np.zeros(0, np.int64)
        self.slots = np.bincount(columns[0], sizes_of_blocks, minlength=CONTEXTS).astype(np.int64)
        self._start_of: dict[int, np.ndarray] = {}
        for index in self._axes:
            mine = columns[1] == index
            table = np.zeros(CLASSES * CLASSES, np.int64)
            table[columns[6][mine]] = starts[mine]
            self._start_of[index] = table

    def _blocks_of(self, index: int) -> np.ndarray:
        """Returns ``int64[7, n]``: context, tensor, first row, first column, size, width, class pair of its blocks."""
        plan, (rows, columns) = self.plans[index], self.shapes[index]
        if plan.rows is None and plan.columns is None:
            return np.array([[plan.level], [index], [-1], [-1], [rows * columns], [rows * columns], [0]], np.int64)
        row_class, row_rank, row_count, row_first = self._axis(plan.rows, rows)
        col_class, col_rank, col_count, col_first = self._axis(plan.columns, columns)
        self._axes[index] = (row_class, row_rank, col_class, col_rank, col_count)
        a, b = np.nonzero(np.outer(row_count, col_count))
        keep = (a > 0) & (b > 0)
        a, b = a[keep], b[keep]
        context = np.clip(plan.level + a + b - 2 * NEUTRAL, 1, CONTEXTS - 1)
        size = row_count[a] * col_count[b]
        tensor = np.full(len(a), index)
        return np.stack([context, tensor, row_first[a], col_first[b], size, col_count[b], a * CLASSES + b])

    def _axis(self, classes: np.ndarray | None, length: int) -> tuple[np.ndarray, ...]:
        """Returns class, rank within the class, members per class, and where each class begins in the joint order."""
        if classes is None:
            classes = np.full(length, NEUTRAL, np.uint8)
        order = np.argsort(classes, kind="stable")
        count = np.bincount(classes, minlength=CLASSES)
        first = np.cumsum(count) - count
        rank = np.empty(length, np.int64)
        rank[order] = np.arange(length) - first[classes[order]]
        self._orders.append(order)
        begin = first + self._ordered
        self._ordered += length
        return classes.astype(np.int64), rank, count, begin

    def to_places(self, positions: np.ndarray) -> np.ndarray:
        """Returns the place of each position, ``int64[n]``, or −1 where a class says that all is zero.

        Args:
            positions: ``int64[n]`` rising positions in all tensors laid end to end.
        """
        places = np.empty(len(positions), np.int64)
        cuts = np.searchsorted(positions, self.offsets)
        flat_start = {int(t): int(s) for t, s in zip(self._blocks.tensor, self._blocks.start, strict=True)}
        for index, plan in enumerate(self.plans):
            part = slice(cuts[index], cuts[index + 1])
            if cuts[index] == cuts[index + 1]:
                continue
            local = positions[part] - self.offsets[index]
            if not plan.level:
                places[part] = -1
            elif index not in self._axes:
                places[part] = local + flat_start[index]
            else:
                places[part] = self._place(index, local)
        return places

    def _place(self, index: int, local: np.ndarray) -> np.ndarray:
        row_class, row_rank, col_class, col_rank, col_count = self._axes[index]
        row, column = divide(local, self.shapes[index][1])
        a, b = row_class[row], col_class[column]
        place = self._start_of[index][a * CLASSES + b] + row_rank[row] * col_count[b] + col_rank[column]
        return np.where((a > 0) & (b > 0), place, -1)

    def to_positions(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions in all tensors laid end to end, ``int64[n]``, and the tensor of each, for rising places."""
        blocks = self._blocks
        cuts = np.append(np.searchsorted(places, blocks.start), len(places))
        block = np.repeat(np.arange(len(blocks.start)), np.diff(cuts))
        tensor = blocks.tensor[block]
        inside = places - blocks.start[block]
        positions = inside + self.offsets[tensor]  # right for flat blocks; the others follow
        matrix = np.flatnonzero(blocks.first_row[block] >= 0)
        if len(matrix):
            block, inside = block[matrix], inside[matrix]
            down = inside // blocks.width[block]
            across = inside - down * blocks.width[block]
            row = self._order[blocks.first_row[block] + down]
            column = self._order[blocks.first_column[block] + across]
            width = np.array([c for _, c in self.shapes], np.int64)[tensor[matrix]]
            positions[matrix] = self.offsets[tensor[matrix]] + row * width + column
        return positions, tensor

    def context_cuts(self, places: np.ndarray) -> np.ndarray:
        """Returns ``int64[33]``: places of context ``k`` are ``places[cuts[k]:cuts[k + 1]]``."""
        return np.searchsorted(places, np.append(0, np.cumsum(self.slots)))


def divide(numbers: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns quotient and remainder; NumPy's own `divmod` takes twice as long."""
    whole = numbers // by
    return whole, numbers - whole * by
