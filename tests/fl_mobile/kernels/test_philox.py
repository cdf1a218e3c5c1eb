"""Our words against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.kernels.philox import words
from fl_mobile.seeds import rng_for, seed_for

pytestmark = pytest.mark.filterwarnings("error")


@settings(deadline=None)
@given(
    key=st.one_of(st.integers(0, 2**64 - 1), st.sampled_from((0, 1, 2**32, 2**64 - 1))),
    first=st.one_of(st.integers(0, 9), st.integers(0, 3000)),
    count=st.integers(0, 1100),
)
def test_words_are_those_of_numpy(key, first, count):
    expected = np.random.Philox(key=key).random_raw(first + count)[first:]
    assert np.array_equal(words(np.array([key], np.uint64), first, count), expected)


def test_words_are_those_of_the_generator_for_one_purpose():
    expected = rng_for(7, "codec").bit_generator.random_raw(20)
    assert np.array_equal(words(np.array([seed_for(7, "codec")], np.uint64), 0, 20), expected)


@pytest.mark.slow
def test_plain_python_gives_the_same_words():
    plain = getattr(words, "py_func", words)
    assert np.array_equal(
        plain(np.array([2**64 - 1], np.uint64), 3, 10), words(np.array([2**64 - 1], np.uint64), 3, 10)
    )
