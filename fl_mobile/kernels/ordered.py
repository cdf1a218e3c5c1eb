"""Sums in one stated order, so that every machine and every language gets the same bits; see `compiled`.

BLAS adds in the order that suits a processor, and fuses products into sums where it can; these loops do neither.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.kernels.compiled import compiled


@compiled
def butterflies(values: np.ndarray, length: int) -> None:
    """Turns every ``length`` of ``float[n]`` into (a + b, a − b) at distances 1, 2, 4, … ``length``/2, in place.

    Args:
        length: A power of two that divides n.
    """
    for at in range(0, len(values), length):
        distance = 1
        while distance < length:
            for first in range(at, at + length, 2 * distance):
                low = values[first : first + distance]
                high = values[first + distance : first + 2 * distance]
                for i in range(distance):
                    a, b = low[i], high[i]
                    low[i], high[i] = a + b, a - b
            distance *= 2


@compiled
def times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns ``float64[rank, rows]``: a matrix times vectors, each sum in the order of the matrix's columns.

    Args:
        matrix: ``float64[rows, inner]``.
        vectors: ``float64[rank, inner]``.
    """
    rows, inner = matrix.shape
    out = np.zeros((len(vectors), rows))
    for k in range(len(vectors)):
        vector, i = vectors[k], 0
        while i + 4 <= rows:  # four sums side by side: one alone waits for each of its additions
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for j in range(inner):
                a += matrix[i, j] * vector[j]
                b += matrix[i + 1, j] * vector[j]
                c += matrix[i + 2, j] * vector[j]
                d += matrix[i + 3, j] * vector[j]
            out[k, i], out[k, i + 1], out[k, i + 2], out[k, i + 3] = a, b, c, d
            i += 4
        while i < rows:
            for j in range(inner):
                out[k, i] += matrix[i, j] * vector[j]
            i += 1
    return out


@compiled
def transposed_times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns ``float64[rank, inner]``: a matrix, transposed, times vectors; each sum in the order of its rows.

    Args:
        matrix: ``float64[rows, inner]``.
        vectors: ``float64[rank, rows]``.
    """
    out = np.zeros((len(vectors), matrix.shape[1]))
    for i in range(matrix.shape[0]):
        row = matrix[i]
        for k in range(len(vectors)):
            factor, sums = vectors[k, i], out[k]
            for j in range(len(row)):
                sums[j] += row[j] * factor
    return out


@compiled
def make_orthonormal(vectors: np.ndarray) -> None:
    """Makes the rows of ``float64[rank, n]`` orthonormal, in place: Gram–Schmidt, twice for accuracy.

    Each loses its parts along earlier ones, one after the other; one that depends on them becomes 0.
    """
    for k in range(len(vectors)):
        vector = vectors[k]
        before = np.sqrt(_dot(vector, vector))
        for again in range(2 * k):
            earlier = vectors[again % k]
            along = _dot(earlier, vector)
            for i in range(len(vector)):
                vector[i] -= along * earlier[i]
        length = np.sqrt(_dot(vector, vector))
        keeps = length > 1e-12 * before
        for i in range(len(vector)):
            vector[i] = vector[i] / length if keeps else 0.0


@compiled
def _dot(left: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for i in range(len(left)):
        total += left[i] * right[i]
    return total
