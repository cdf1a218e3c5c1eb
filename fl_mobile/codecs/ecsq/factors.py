"""Splits an update into low-rank factors and a residual where that pays, and puts the two together again."""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq import lowrank
from fl_mobile.codecs.ecsq.layout import Shapes, shapes_of
from fl_mobile.codecs.ecsq.records import LAMBDA, MAX_RANK, Factors
from fl_mobile.codecs.ecsq.rounding import dead_zone, mean_shifts, rate_distortion

STEP_PARTS = 32
"""The factors' step is Δ·ratio/32."""

_MOST = {"stochastic": 8, "rdo": MAX_RANK}
"""Directions to look for: with the wide steps of stochastic rounding there are never more, and each costs time."""

_RATIOS = {"stochastic": 8, "rdo": 32}
"""Measured on updates of the demo's CNN. The steps of the two roundings differ as much, so the factors' do not."""


def scale_of(ratio: int, step: float) -> float:
    """Returns what one unit of `low_rank` is worth."""
    return step * ratio / STEP_PARTS * 2.0 ** -(8 + lowrank.BASIS_BITS)


def low_rank(factors: Factors, numbers: np.ndarray, shapes: Shapes) -> dict[int, np.ndarray]:
    """Returns tensor index → ``L / scale``, whole numbers in ``float64[R, C]``, from the factors' levels."""
    out, at = {}, 0
    for index in np.flatnonzero(factors.ranks).tolist():
        rows, columns, rank = int(shapes.rows[index]), int(shapes.columns[index]), int(factors.ranks[index])
        middle, end = at + rows * rank, at + (rows + columns) * rank
        left = numbers[at:middle].reshape(rows, rank)
        right = lowrank.basis(numbers[middle:end].reshape(columns, rank))
        out[index] = lowrank.product(shifted(left, (factors.first_shift, factors.second_shift)), right)
        at = end
    return out


def shifted(levels: np.ndarray, shifts: tuple[int, int]) -> np.ndarray:
    """Returns signed levels in 256ths of a step, moved to where their values lie on average."""
    shift = np.where(np.abs(levels) == 1, shifts[0], shifts[1])
    return 256 * levels + np.sign(levels) * shift


def no_factors(shapes: Shapes) -> Factors:
    """Returns the record of an update without any."""
    return Factors(np.zeros(len(shapes.rows), np.int64))


def extract(
    values: np.ndarray, shapes: Shapes, step: float, rounding: str, max_rank: int
) -> tuple[np.ndarray, Factors, np.ndarray]:
    """Returns the residual ``float32[n]``, the factors, and their levels laid end to end, ``int64[m]``.

    A tensor is split only if that lowers the estimated cost: bits + squared error / (λ·Δ²).
    """
    ratio = _RATIOS[rounding]
    factor_step = step * ratio / STEP_PARTS
    matrices, rights = {}, {}
    for index, (rows, columns) in enumerate(zip(shapes.rows.tolist(), shapes.columns.tolist(), strict=True)):
        if min(rows, columns) < lowrank.MIN_SIDE:
            continue
        matrix = values[shapes.offset[index] : shapes.offset[index + 1]].reshape(rows, columns)
        right = lowrank.directions(matrix, factor_step, min(max_rank, _MOST[rounding]))
        if right is not None:
            matrices[index], rights[index] = matrix, right
    if not rights:
        return values, no_factors(shapes), np.zeros(0, np.int64)
    lefts, shifts = _lefts(matrices, rights, factor_step, rounding)
    residual, scale = values.copy(), scale_of(ratio, step)
    for index, matrix in matrices.items():
        part = slice(shapes.offset[index], shapes.offset[index + 1])
        left, right = shifted(lefts[index], shifts) * scale, lowrank.basis(rights[index])
        rest = (matrix - left.astype(np.float32) @ right.astype(np.float32).T).ravel()
        cost = _cost(rest, step, rounding) + _factor_bits(lefts[index]) + _factor_bits(rights[index])
        if cost < _cost(values[part], step, rounding):
            residual[part] = rest
        else:
            del lefts[index], rights[index]
    if not rights:
        return values, no_factors(shapes), np.zeros(0, np.int64)
    return residual, Factors(_ranks(rights, shapes), ratio, *shifts), _end_to_end(lefts, rights)


def _ranks(rights: dict[int, np.ndarray], shapes: Shapes) -> np.ndarray:
    ranks = np.zeros(len(shapes.rows), np.int64)
    for index, right in rights.items():
        ranks[index] = right.shape[1]
    return ranks


def _lefts(
    matrices: dict[int, np.ndarray], rights: dict[int, np.ndarray], step: float, rounding: str
) -> tuple[dict[int, np.ndarray], tuple[int, int]]:
    """Returns the levels of every ``U``, rounded together, and their shifts."""
    exact = {i: lowrank.coefficients(matrices[i], lowrank.basis(right)) for i, right in rights.items()}
    shapes = shapes_of(tuple(left.shape for left in exact.values()))
    values = np.concatenate([left.ravel() for left in exact.values()]).astype(np.float32)
    levels = rate_distortion(values, step, shapes) if rounding == "rdo" else dead_zone(values, step)
    dense = np.zeros(len(values), np.int64)
    dense[levels.positions] = np.where(levels.negative, -levels.magnitudes, levels.magnitudes)
    parts = np.split(dense, shapes.offset[1:-1])
    lefts = {i: part.reshape(left.shape) for (i, left), part in zip(exact.items(), parts, strict=True)}
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
