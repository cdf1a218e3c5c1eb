"""A random order of the population: everybody once, at any size, and nothing held."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from device_sim.fleet.selection.walk import head, walk


@pytest.mark.parametrize("population", [1, 2, 3, 1000, 4096, 4097, 5000, 16_384, 16_385, 70_001])
def test_everybody_comes_exactly_once(population):
    order = np.concatenate(list(walk(3, "cohort", population=population)))
    assert np.array_equal(np.sort(order), np.arange(population))
    assert population < 100 or not np.array_equal(order, np.arange(population))


@pytest.mark.parametrize("population", [500, 100_000])
def test_pieces_do_not_change_the_order(population):
    whole = np.concatenate(list(walk(1, "x", population=population)))
    small = np.concatenate(list(walk(1, "x", population=population, piece=100)))
    assert np.array_equal(whole, small)
    assert np.array_equal(head(1, "x", population=population, count=77), whole[:77])
    assert np.array_equal(head(1, "x", population=population, count=population + 1), whole)


@pytest.mark.parametrize("population", [20, 10_000])
def test_every_device_is_as_likely_to_come_early(population):
    """Ten equal classes among the first tenth of 400 walks; chi-squared's 99.9th percentile at 9 is 27.9."""
    found = np.zeros(10)
    for key in range(400):
        first = head(key, population=population, count=population // 10)
        found += np.bincount(first * 10 // population, minlength=10)
    expected = found.sum() / 10
    assert ((found - expected) ** 2 / expected).sum() < 27.9


def test_neighbours_do_not_stay_neighbours():
    order = np.concatenate(list(walk(0, population=50_000)))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    other = np.concatenate(list(walk(1, population=50_000)))
    assert (order == other).mean() < 0.001


def test_the_first_thousand_of_a_million_cost_kilobytes():
    tracemalloc.start()
    assert len(np.unique(head(0, population=1_000_000, count=1000))) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000
