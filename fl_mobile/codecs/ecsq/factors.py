"""Splits an update into low-rank factors and a residual where that pays."""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.codecs.ecsq import lowrank
from fl_mobile.codecs.ecsq.layout import Shapes, shapes_of
from fl_mobile.codecs.ecsq.records import LAMBDA, MAX_RANK, Factors
from fl_mobile.codecs.ecsq.rounding import dead_zone, mean_shifts, rate_distortion
from fl_mobile.kernels.compiled import compiled

STEP_PARTS = 32
"""The factors' step is Δ·ratio/32."""

_UNIT = 2.0 ** -(8 + lowrank.BASIS_BITS)

_MOST = {"stochastic": 8, "rdo": MAX_RANK}
"""Directions to look for: with the wide steps of stochastic rounding there are never more, and each costs time."""

_RATIOS = {"stochastic": 8, "rdo": 32}
"""Measured on updates of the demo's CNN. The steps of the two roundings differ as much, so the factors' do not."""


@compiled
def scale_of(ratio: int, step: float) -> float:
    """Returns what one unit of L's whole numbers is worth."""
    return step * ratio / STEP_PARTS * _UNIT


def no_factors(shapes: Shapes) -> Factors:
    """Returns the record of an update without any."""
    return Factors(np.zeros(len(shapes.rows), np.int64))


def may_split(matrix: tuple[int, int]) -> bool:
    """Whether a tensor of so many rows and columns is looked at at all."""
    return min(matrix) >= lowrank.MIN_SIDE


def extract(
    values: np.ndarray, shapes: Shapes, step: float, rounding: str, max_rank: int
) -> tuple[np.ndarray, Factors, np.ndarray]:
    """Returns the residual ``float32[n]``, the factors, and their levels laid end to end, ``int64[m]``.

    A tensor is split only if that lowers the estimated cost: bits + squared error / (λ·Δ²).
    """
    ratio = _RATIOS[rounding]
    factor_step = step * ratio / STEP_PARTS
    matrices, split = {}, {}
    for index, (rows, columns) in enumerate(zip(shapes.rows.tolist(), shapes.columns.tolist(), strict=True)):
        if not may_split((rows, columns)):
            continue
        matrix = values[shapes.offset[index] : shapes.offset[index + 1]].reshape(rows, columns)
        found = lowrank.directions(matrix, factor_step, min(max_rank, _MOST[rounding]))
        if found is not None:
            matrices[index], split[index] = matrix, found
    if not split:
        return values, no_factors(shapes), np.zeros(0, np.int64)
    rights = {index: found.levels for index, found in split.items()}
    bases = {index: lowrank.basis(right) for index, right in rights.items()}
    lefts, shifts = _lefts(split, bases, factor_step, rounding)
    residual, scale = np.empty_like(values), scale_of(ratio, step)
    for index in range(len(shapes.rows)):
        part = slice(shapes.offset[index], shapes.offset[index + 1])
        if index in rights:
            rest = residual[part].reshape(matrices[index].shape)
            left = _values(lefts[index], *shifts, scale)
            np.matmul(left, bases[index].astype(np.float32).T, out=rest)
            sums = _take_off(rest, matrices[index])
            bits = _bits(lefts[index]) + _bits(rights[index])
            whole = _cost(values[part], split[index].sums, step, rounding)
            if _cost(residual[part], sums, step, rounding) + bits < whole:
                continue
            del lefts[index], rights[index]
        residual[part] = values[part]
    if not rights:
        return values, no_factors(shapes), np.zeros(0, np.int64)
    return residual, Factors(_ranks(rights, shapes), ratio, *shifts), _end_to_end(lefts, rights)


@compiled
def _values(levels: np.ndarray, first_shift: int, second_shift: int, scale: float) -> np.ndarray:
    """Returns ``float32[R, r]``, what the levels of ``U`` stand for."""
    rows, rank = levels.shape
    out = np.empty((rows, rank), np.float32)
    for i in range(rows):
        for k in range(rank):
            out[i, k] = shifted(levels[i, k], first_shift, second_shift) * scale
    return out


@compiled
def shifted(level: int, first_shift: int, second_shift: int) -> int:
    """Returns a signed level in 256ths of a step, moved to where its values lie on average."""
    shift = first_shift if abs(level) == 1 else second_shift
    return 256 * level + (shift if level > 0 else -shift if level < 0 else 0)


@compiled
def _take_off(rest: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns ``float32[R, C]`` into the matrix without it; returns Σ|x| and Σx² of that, ``float64[2]``."""
    rows, columns = matrix.shape
    sums = np.zeros((2, columns))
    for i in range(rows):
        for j in range(columns):
            left = matrix[i, j] - rest[i, j]
            rest[i, j] = left
            sums[0, j] += abs(left)
            sums[1, j] += left * left
    return np.array([sums[0].sum(), sums[1].sum()])


def _ranks(rights: dict[int, np.ndarray], shapes: Shapes) -> np.ndarray:
    ranks = np.zeros(len(shapes.rows), np.int64)
    for index, right in rights.items():
        ranks[index] = right.shape[1]
    return ranks


def _lefts(
    split: dict[int, lowrank.Directions], bases: dict[int, np.ndarray], step: float, rounding: str
) -> tuple[dict[int, np.ndarray], tuple[int, int]]:
    """Returns the levels of every ``U``, rounded together, and their shifts."""
    exact = {i: lowrank.coefficients(split[i], right) for i, right in bases.items()}
    shapes = shapes_of(tuple(left.shape for left in exact.values()))
    values = np.concatenate([left.ravel() for left in exact.values()])
    dense, shifts = _in_levels(values, step, rounding == "rdo", shapes)
    parts = np.split(dense, shapes.offset[1:-1])
    lefts = {i: part.reshape(left.shape) for (i, left), part in zip(exact.items(), parts, strict=True)}
    return lefts, shifts


@compiled
def _in_levels(values: np.ndarray, step: float, carefully: bool, shapes: Shapes) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns ``int64[n]``, signed levels of values, and their shifts; carefully is by rate and distortion."""
    levels = rate_distortion(values, step, shapes) if carefully else dead_zone(values, step)
    dense = np.zeros(len(values), np.int64)
    for i in range(len(levels.positions)):
        dense[levels.positions[i]] = -levels.magnitudes[i] if levels.negative[i] else levels.magnitudes[i]
    return dense, mean_shifts(values, levels, step)


def _end_to_end(lefts: dict[int, np.ndarray], rights: dict[int, np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for index in rights for part in (lefts[index], rights[index])])


def _cost(values: np.ndarray, sums: np.ndarray, step: float, rounding: str) -> float:
    """Returns roughly what coding these values costs: bits + squared error / (λ·Δ²).

    Args:
        sums: Their Σ|x| and Σx².
    """
    magnitude, energy = float(sums[0]) / step, float(sums[1]) / step**2
    if rounding == "stochastic":
        marks, error = min(magnitude, 0.5 * len(values)) + 1e-9, max(magnitude - energy, 0.0)
        return error / LAMBDA + marks * (math.log2(len(values) / marks) + 2)
    large = np.abs(values[np.abs(values) > 0.6 * step], dtype=np.float64) / step
    marks = len(large) + 1e-9
    error = energy - float(np.square(large).sum()) + marks / 12
    return error / LAMBDA + marks * (math.log2(len(values) / marks) + 2) + 2 * float(np.log2(large + 0.4).sum())


@compiled
def _bits(levels: np.ndarray) -> float:
    """Returns the bits of a factor, ``int64[n, r]``, column by column, if its levels were Laplacian."""
    rows, rank = levels.shape
    sums, bits = np.zeros(rank, np.int64), 0.0
    for i in range(rows):
        for k in range(rank):
            sums[k] += abs(levels[i, k])
    for k in range(rank):
        bits += rows * math.log2(1 + 2 * math.e * (sums[k] / rows + 1e-3))
    return bits
