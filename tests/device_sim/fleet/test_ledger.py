"""The ledger against a plain dict, and its checkpoint."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.ledger import COLUMNS, Ledger
from fl_mobile.errors import RunError

numbers = st.floats(allow_nan=True, allow_infinity=True)
records = st.lists(
    st.tuples(st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True), st.sampled_from(COLUMNS), numbers),
    max_size=20,
)


@given(records)
@settings(deadline=None)
def test_it_is_a_dict_of_rows(writes):
    ledger, model = Ledger(), {}
    for index, name, value in writes:
        ledger.record(np.array(index), {name: np.full(len(index), value)})
        for device in index:
            model.setdefault(device, dict.fromkeys(COLUMNS, math.nan))[name] = value
    restored = Ledger.from_json(json.loads(json.dumps(ledger.as_json())))
    everyone = np.arange(62)
    for book in (ledger, restored):
        assert book.devices().tolist() == list(model)
        assert len(book) == len(model)
        for name in COLUMNS:
            expected = [model.get(device, {}).get(name, math.nan) for device in range(62)]
            np.testing.assert_array_equal(book.column(name, everyone), expected)
            np.testing.assert_array_equal(book.column(name), [row[name] for row in model.values()])
    assert restored.as_json() == ledger.as_json(), "the same run has the same checkpoint"


def test_a_participation():
    ledger = Ledger()
    for round_num in (3, 9):
        ledger.took_part(
            np.array([4, 2]),
            round_num=round_num,
            at_seconds=100.0 * round_num,
            task_seconds=np.array([1.0, 2.0]),
            examples=np.array([10, 20]),
            loss=np.array([0.5, 0.25]),
        )
    assert ledger.column("rounds", np.array([2, 4, 5]))[:2].tolist() == [2, 2]
    assert ledger.column("last_round", np.array([2])).tolist() == [9]
    assert ledger.column("last_seconds", np.array([2])).tolist() == [900]
    assert ledger.column("examples", np.array([4, 2])).tolist() == [10, 20]


def test_it_grows_with_devices_seen_only():
    ledger = Ledger()
    for _ in range(1000):
        ledger.record(np.array([999_999, 5]), {"loss": np.ones(2)})
    assert len(ledger.as_json()["values"]) < 400


def damaged():
    good = Ledger()
    good.record(np.arange(3), {"loss": np.ones(3)})
    value = good.as_json()
    yield {}
    yield {**value, "columns": ["loss"]}
    yield {**value, "devices": "!!"}
    yield {**value, "values": value["values"][:-4]}
    yield {**value, "values": value["devices"]}
    yield {**value, "devices": 7}


@pytest.mark.parametrize("value", list(damaged()))
def test_a_damaged_checkpoint_is_named(value):
    with pytest.raises(RunError, match="ledger of devices"):
        Ledger.from_json(value)
