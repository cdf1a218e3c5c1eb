"""A server step in whole numbers: what rounding it adds to the noise, and that it is right on average."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fl_mobile.server.snap import _largest, _whole
from tests.fl_mobile.samples import philox

NUMBERS = philox(3).standard_normal(200_000) * 700.0


def excess(steps: np.ndarray) -> float:
    """Returns the error of steps scaled to be right on average, in units of the numbers' energy."""
    scale = np.dot(NUMBERS, NUMBERS) / np.dot(steps, NUMBERS)
    return float(np.sum(np.square(steps * scale)) / np.sum(np.square(NUMBERS)) - 1)


@pytest.mark.parametrize(("share", "told"), [(0.15, 0.87), (0.3, 0.38), (1.0, 0.57)])
def test_the_largest_by_sign_cost_what_the_page_says(share: float, told: float) -> None:
    steps = _largest(NUMBERS, share)
    assert excess(steps) == pytest.approx(told, abs=0.02)
    assert np.count_nonzero(steps) == round(share * len(NUMBERS))
    assert len(np.unique(np.abs(steps[steps != 0]))) == 1
    assert np.dot(steps, NUMBERS) == pytest.approx(np.dot(NUMBERS, NUMBERS), rel=1e-3)
    kept = np.abs(NUMBERS[steps != 0]).min()
    assert np.abs(NUMBERS[steps == 0]).max(initial=0.0) <= kept


def test_whole_numbers_cost_a_twelfth() -> None:
    assert excess(_whole(NUMBERS)) == pytest.approx(1 / 12, abs=0.01)


def test_few_and_equal_numbers_move_and_zeros_do_not() -> None:
    assert _largest(np.array([0.0, 5.0, 0.0, -5.0]), 1.0).tolist() == [0, 5, 0, -5]
    assert _largest(np.array([0.0, 5.0, 0.0, -5.0]), 0.01).tolist() == [0, 5, 0, -5], "as large as the largest"
    assert _largest(np.array([0.01]), 0.5).tolist() == [1], "less than a step is one"
    assert math.isfinite(float(_largest(np.full(3, 1e-300), 0.5).sum()))
    assert _largest(np.array([1e-310, 0.0]), 0.5).tolist() == [1, 0], "of numbers whose squares are 0 too"
