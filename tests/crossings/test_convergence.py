"""Features that are right alone are right together: they learn as well as in float32, or are refused with the reason.

Every run is a whole federation over real packets (`tests.crossings.net`); docs/combinations.md has the numbers.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.crossings.measure_net import COLUMNS, SEEDS
from tests.crossings.net import (
    ALGORITHMS,
    MEMORIES,
    MODES,
    SELECTIONS,
    Row,
    mean_accuracy,
    met,
    reference,
    refusal,
)

POINTS = 2.0
"""A combination may end this far below the same algorithm in float32, synchronously, without a memory."""

KEEPS = ("scaffold", "feddyn")
PER_STEP = ("scaffold", "fednova")

SHORT = [
    ("scaffold", Row()),
    ("feddyn", Row()),
    ("fedadagrad", Row()),
    ("fedavg", Row(memory="error-feedback", selection="over 1.5")),
    ("fedavg", Row(mode="asynchronous")),
]
"""One member of each kind that once failed: 12 to 87 %, or NaN, where float32 reaches 94 %."""


def learns(algorithm: str, row: Row, seeds: tuple[int, ...]) -> None:
    found = mean_accuracy(met(algorithm, row), seeds)[0]
    wanted = reference(algorithm, row.participation, seeds)
    assert np.isfinite(found)
    assert found >= wanted - POINTS, f"{algorithm}, {row}: {found:.1f} %, in float32 {wanted:.1f} %"


@pytest.mark.parametrize(("algorithm", "row"), SHORT)
def test_what_once_failed_together_learns_as_well_as_its_parts(algorithm: str, row: Row) -> None:
    learns(algorithm, row, SEEDS[:2])


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_combination_of_the_table_learns_or_is_refused(algorithm: str, column: str) -> None:
    if not refusal(met(algorithm, COLUMNS[column])):
        learns(algorithm, COLUMNS[column], SEEDS)


def reason(algorithm: str, row: Row) -> str:
    """Returns what a refusal has to say; the committed table of docs/combinations.md in code."""
    if algorithm in (*KEEPS, *PER_STEP) and row.memory != "none":
        return "the update of its own round"
    if algorithm in KEEPS and row.mode == "asynchronous":
        return "different versions"
    if row.mode == "asynchronous" and row.memory != "none":
        return "belongs to one round"
    if row.mode == "asynchronous" and row.selection != "exact":
        return "no round waits"
    return ""


def test_exactly_what_the_table_says_is_refused_and_says_why() -> None:
    rows = [Row("default", *names) for names in itertools.product(MEMORIES, SELECTIONS, MODES)]
    for algorithm, row in itertools.product(ALGORITHMS, rows):
        told, wanted = refusal(met(algorithm, row)), reason(algorithm, row)
        assert bool(told) == bool(wanted), f"{algorithm}, {row}: {told}"
        assert wanted in told
