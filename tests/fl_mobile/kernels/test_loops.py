"""Compiled loops against NumPy, to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_mobile.kernels.loops import add_rounded, largest_magnitude

floats = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


@given(values=floats)
def test_the_largest_magnitude_is_that_of_numpy(values):
    expected, found = np.max(np.abs(values), initial=0.0), largest_magnitude(values)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", range(0, 67, 11))
def test_one_value_that_is_not_finite_is_never_missed(bad, at):
    values = np.linspace(-3e38, 3e38, 67, dtype=np.float32)
    values[at] = bad
    assert not math.isfinite(largest_magnitude(values))


@given(
    values=arrays(np.float32, 50, elements=st.floats(-1e4, 1e4, width=32)),
    scale=st.one_of(st.sampled_from([0.5, -0.5, 1.5, 2.0**34]), st.floats(-(2.0**46), 2.0**46)),
)
def test_terms_are_rounded_half_to_even_as_numpy_rounds(values, scale):
    total = np.arange(50, dtype=np.int64)
    add_rounded(total, values, scale, float(np.abs(values).max()))
    assert np.array_equal(total, np.arange(50) + np.rint(values.astype(np.float64) * scale).astype(np.int64))


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1500])
@pytest.mark.parametrize("scale", [2.0**34, 1.0, -0.3, 2.0**51 / 7 * (1 - 2.0**-53), 2.0**51 / 7, -(2.0**61) / 8])
def test_one_or_several_at_once_terms_are_the_same(length, scale):
    """Which of the two it is follows from the largest term; the last but two scales are at the border."""
    values = np.random.default_rng(length).uniform(-7, 7, length).astype(np.float32)
    values[0], several, one = 7, np.zeros(length, np.int64), np.zeros(length, np.int64)
    add_rounded(several, values, scale, 7.0)
    add_rounded(one, values, scale, math.inf)
    expected = np.rint(values.astype(np.float64) * scale).astype(np.int64)
    assert several.tolist() == one.tolist() == expected.tolist()


def test_halves_go_to_the_even_neighbour_and_a_negative_scale_mirrors_them():
    values, total = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32), np.zeros(6, np.int64)
    add_rounded(total, values, 1.0, 2.5)
    assert total.tolist() == [0, 2, 2, 0, -2, -2]
    add_rounded(total, values, -1.0, 2.5)
    assert not total.any()


def test_received_arrays_that_cannot_be_written_are_read_as_well():
    values = np.frombuffer(np.array([1, -7, 3], np.float32).tobytes(), np.float32)
    total = np.zeros(3, np.int64)
    add_rounded(total, values, 2.0, 7.0)
    assert (largest_magnitude(values), total.tolist()) == (7.0, [2, -14, 6])
