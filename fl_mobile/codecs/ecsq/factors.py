"""Splits an update into low-rank factors and a residual where that pays, and puts the two together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_mobile.codecs.ecsq import lowrank
from fl_mobile.codecs.ecsq.layout import is_matrix
from fl_mobile.codecs.ecsq.rounding import LAMBDA, dead_zone, mean_shifts, rate_distortion

STEP_PARTS = 32
"""The factors' step is Δ·ratio/32."""

_MOST = {"stochastic": 8, "rdo": lowrank.MAX_RANK}
"""Directions to look for: with the wide steps of stochastic rounding there are never more, and each costs time."""

_RATIOS = {"stochastic": 8, "rdo": 32}
"""Measured on updates of the demo's CNN. The steps of the two roundings differ as much, so the factors' do not."""


@dataclass(frozen=True)
class Factors:
    """What a decoder must know of the factors besides their levels.

    Attributes:
        ranks: Columns of ``U`` and ``V`` for every tensor, 0 for none.
        ratio: The factors' step in 32nds of Δ, 1 … 255.
        shifts: Where levels 1 and above of ``U`` are reconstructed, in 256ths of a step from the level.
    """

    ranks: tuple[int, ...]
    ratio: int = 1
    shifts: tuple[int, int] = (0, 0)

    def shapes(self, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns the shapes that are coded: those of the tensors, then ``U`` and ``V`` of each that has a rank."""
        pairs = [((r, k), (c, k)) for (r, c), k in zip(shapes, self.ranks, strict=True) if k]
        return [*shapes, *(shape for pair in pairs for shape in pair)]

    def scale(self, step: float) -> float:
        """Returns what one unit of `low_rank` is worth."""
        return step * self.ratio / STEP_PARTS * 2.0 ** -(8 + lowrank.BASIS_BITS)

    def low_rank(self, numbers: np.ndarray, shapes: Sequence[tuple[int, int]]) -> dict[int, np.ndarray]:
        """Returns tensor index → ``L / scale``, whole numbers in ``float64[R, C]``, from the factors' levels."""
        out, at = {}, 0
        for index, ((rows, columns), rank) in enumerate(zip(shapes, self.ranks, strict=True)):
            if rank:
                middle, end = at + rows * rank, at + (rows + columns) * rank
                left = numbers[at:middle].reshape(rows, rank)
                right = lowrank.basis(numbers[middle:end].reshape(columns, rank))
                out[index] = lowrank.product(shifted(left, self.shifts), right)
                at = end
        return out


def shifted(levels: np.ndarray, shifts: tuple[int, int]) -> np.ndarray:
    """Returns signed levels in 256ths of a step, moved to where their values lie on average."""
    shift = np.where(np.abs(levels) == 1, shifts[0], shifts[1])
    return 256 * levels + np.sign(levels) * shift


def extract(
    values: np.ndarray,
    shapes: Sequence[tuple[int, int]],
    offsets: np.ndarray,
    step: float,
    rounding: str,
    max_rank: int,
) -> tuple[np.ndarray, Factors, np.ndarray]:
    """Returns the residual ``float32[n]``, the factors, and their levels laid end to end, ``int64[m]``.

    A tensor is split only if that lowers the estimated cost: bits + squared error / (λ·Δ²).
    """
    ratio = _RATIOS[rounding]
    factor_step = step * ratio / STEP_PARTS
    matrices, rights = {}, {}
    for index, (rows, columns) in enumerate(shapes):
        if not is_matrix((rows, columns)):
            continue
        matrix = values[offsets[index] : offsets[index + 1]].reshape(rows, columns)
        right = lowrank.directions(matrix, factor_step, min(max_rank, _MOST[rounding]))
        if right is not None:
            matrices[index], rights[index] = matrix, right
    none = Factors((0,) * len(shapes))
    if not rights:
        return values, none, np.zeros(0, np.int64)
    lefts, shifts = _lefts(matrices, rights, factor_step, rounding)
    factors = Factors(tuple(rights[i].shape[1] if i in rights else 0 for i in range(len(shapes))), ratio, shifts)
    numbers = _end_to_end(lefts, rights)
    low, scale = factors.low_rank(numbers, shapes), factors.scale(step)
    residual = values.copy()
    for index, matrix in matrices.items():
        part = slice(offsets[index], offsets[index + 1])
        rest = np.empty(matrix.shape, np.float32)
        np.multiply(low.pop(index), scale, out=rest, casting="same_kind")
        rest = np.subtract(matrix, rest, out=rest).ravel()
        cost = _cost(rest, step, rounding) + _factor_bits(lefts[index]) + _factor_bits(rights[index])
        if cost < _cost(values[part], step, rounding):
            residual[part] = rest
        else:
            del lefts[index], rights[index]
    if not rights:
        return values, none, np.zeros(0, np.int64)
    kept = Factors(tuple(rights[i].shape[1] if i in rights else 0 for i in range(len(shapes))), ratio, shifts)
    return residual, kept, _end_to_end(lefts, rights)


def _lefts(
    matrices: dict[int, np.ndarray], rights: dict[int, np.ndarray], step: float, rounding: str
) -> tuple[dict[int, np.ndarray], tuple[int, int]]:
    """Returns the levels of every ``U``, rounded together, and their shifts."""
    exact = {i: lowrank.coefficients(matrices[i], lowrank.basis(right)) for i, right in rights.items()}
    shapes = [left.shape for left in exact.values()]
    offsets = np.cumsum([0, *(r * k for r, k in shapes)])
    values = np.concatenate([left.ravel() for left in exact.values()]).astype(np.float32)
    levels = rate_distortion(values, step, shapes, offsets) if rounding == "rdo" else dead_zone(values, step)
    dense = np.zeros(len(values), np.int64)
    dense[levels.positions] = np.where(levels.negative, -levels.magnitudes, levels.magnitudes)
    parts = np.split(dense, offsets[1:-1])
    lefts = {i: part.reshape(shape) for i, part, shape in zip(exact, parts, shapes, strict=True)}
    return lefts, mean_shifts(values, levels, step)


def _end_to_end(lefts: dict[int, np.ndarray], rights: dict[int, np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for index in rights for part in (lefts[index], rights[index])])


def _cost(values: np.ndarray, step: float, rounding: str) -> float:
    """Returns roughly what coding these values costs: bits + squared error / (λ·Δ²)."""
    if rounding == "stochastic":
        magnitude = float(np.abs(values).sum()) / step
        energy = float(np.einsum("i,i", values, values)) / step**2
        marks, error = min(magnitude, 0.5 * len(values)) + 1e-9, max(magnitude - energy, 0.0)
        return error / LAMBDA + marks * (np.log2(len(values) / marks) + 2)
    large = np.abs(values[np.abs(values) > 0.6 * step], dtype=np.float64) / step
    marks, energy = len(large) + 1e-9, float(np.einsum("i,i", values, values)) / step**2
    error = energy - float(np.square(large).sum()) + marks / 12
    return error / LAMBDA + marks * (np.log2(len(values) / marks) + 2) + 2 * float(np.log2(large + 0.4).sum())


def _factor_bits(levels: np.ndarray) -> float:
    """Returns the bits of a factor, column by column, if its levels were Laplacian."""
    mean = np.abs(levels).mean(axis=0) + 1e-3
    return float(len(levels) * np.log2(1 + 2 * np.e * mean).sum())
