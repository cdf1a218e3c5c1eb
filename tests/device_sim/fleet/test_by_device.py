"""Numbers by device against a plain dict, their memory, and their checkpoint."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.fleet.by_device import ByDevice, packed
from device_sim.fleet.ledger import Ledger
from fl_mobile.errors import RunError

POPULATION = 1_000_000


@given(st.lists(st.tuples(st.lists(st.integers(0, 3000), max_size=20, unique=True), st.integers(0, 2**31 - 1))))
def test_it_is_a_dict_with_a_default(writes: list[tuple[list[int], int]]) -> None:
    held, model = ByDevice(), dict.fromkeys(range(4000), 0)
    for index, value in writes:
        held.set(np.array(index, np.int64), value)
        model.update(dict.fromkeys(index, value))
    for found in (held, ByDevice.from_json(json.loads(json.dumps(held.as_json())))):
        assert found.get(np.arange(4000)).tolist() == list(model.values())
        assert found.as_json() == held.as_json(), "the same run has the same checkpoint"


@pytest.mark.parametrize(("what", "most_bytes"), [("versions", 13), ("ledger", 120)])
def test_a_hundred_thousand_devices_seen_take_few_bytes_each(what: str, most_bytes: int) -> None:
    """A dict took 100 for a version and 300 for a row of the ledger: that is what a run grew by."""
    held, ledger, rng = ByDevice(), Ledger(), np.random.default_rng(0)
    rounds = rng.choice(POPULATION, (100, 1000), replace=False)
    tracemalloc.start()
    for round_num, asked in enumerate(rounds):
        if what == "versions":
            held.set(asked, round_num)
        else:
            ledger.record(asked, {"loss": np.ones(len(asked))})
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < most_bytes * rounds.size


def damaged() -> list[object]:
    good = ByDevice()
    good.set(np.arange(3), 7)
    value = good.as_json()
    return [
        {},
        7,
        {**value, "devices": "!!"},
        {**value, "values": value["values"][:-4]},
        {**value, "values": packed(np.arange(2), "<i4")},
    ]


@pytest.mark.parametrize("value", damaged())
def test_a_damaged_checkpoint_is_named(value: object) -> None:
    with pytest.raises(RunError, match="versions that devices hold cannot be read"):
        ByDevice.from_json(value)
