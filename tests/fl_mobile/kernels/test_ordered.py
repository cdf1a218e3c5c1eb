"""Sums in a stated order: what they are in whole numbers, and the same bits compiled or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.kernels import ordered


def plain(function):
    """Returns the function as Python runs it."""
    return getattr(function, "py_func", function)


def numbers(seed, shape, dtype=np.float64):
    """Returns values of very different sizes, of which no two orders give one sum."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 2.0 ** rng.integers(-20, 20, shape)).astype(dtype)


@pytest.mark.parametrize("length", [1, 2, 8, 64])
def test_butterflies_are_the_hadamard_matrix(length):
    sign = [[(-1) ** (i & j).bit_count() for j in range(length)] for i in range(length)]
    values = np.arange(3 * length, dtype=np.float32) % 7
    expected = values.reshape(3, length) @ np.array(sign)
    ordered.butterflies(values, length)
    assert np.array_equal(values.reshape(3, length), expected)


def test_butterflies_add_near_values_first():
    values = np.array([1.0, 2.0**-24, 2.0**-24, 2.0**-24], np.float32)
    ordered.butterflies(values, 4)
    assert values[0] == 1 + 2.0**-23  # (1 + ε) + (ε + ε) in float32; from left to right it would be 1


@given(rows=st.integers(1, 9), inner=st.integers(1, 9), rank=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_products_are_sums_from_left_to_right(rows, inner, rank, seed):
    matrix = numbers(seed, (rows, inner))
    right, left = numbers(seed + 1, (rank, inner)), numbers(seed + 2, (rank, rows))
    for k, i in np.ndindex(rank, rows):
        total = 0.0
        for j in range(inner):
            total += float(matrix[i, j]) * float(right[k, j])
        assert ordered.times(matrix, right)[k, i] == total
    assert np.array_equal(ordered.transposed_times(matrix, left), ordered.times(matrix.T.copy(), left))


@given(size=st.integers(3, 30), rank=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_vectors_become_orthonormal_and_dependent_ones_nothing(size, rank, seed):
    vectors = np.random.default_rng(seed).normal(size=(rank, size))
    ordered.make_orthonormal(vectors)
    assert np.allclose(vectors @ vectors.T, np.eye(rank), atol=1e-12)
    twice = np.concatenate([vectors, -3 * vectors[:1]])
    ordered.make_orthonormal(twice)
    assert not twice[-1].any()


@pytest.mark.parametrize("seed", range(5))
def test_compiled_or_not_the_bits_are_the_same(seed):
    matrix, vectors = numbers(seed, (13, 7)), numbers(seed + 9, (3, 7))
    pairs = [(ordered.times, matrix, vectors), (ordered.transposed_times, matrix, numbers(seed, (3, 13)))]
    for function, *arguments in pairs:
        assert function(*arguments).tobytes() == plain(function)(*arguments).tobytes()
    for function, values, *more in (
        (ordered.butterflies, numbers(seed, 64, np.float32), 16),
        (ordered.make_orthonormal, vectors),
    ):
        other = values.copy()
        function(values, *more)
        plain(function)(other, *more)
        assert values.tobytes() == other.tobytes()
