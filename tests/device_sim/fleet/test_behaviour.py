"""FedScale's behaviour trace against FedScale's own rule, and its mistakes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from device_sim.fleet.availability.behaviour import read_behaviour
from device_sim.fleet.availability.presence import Clock, Rules, open_presence, refusals
from device_sim.fleet.devices.fleet import open_fleet
from fl_mobile.errors import DataError


def written(folder, entries, name="client_behave_trace"):
    path = folder / name
    path.write_bytes(pickle.dumps(entries, 4))
    return path


def entry(events, finish):
    return {
        "duration": 1,
        "active": events[::2],
        "inactive": events[1::2],
        "finish_time": finish,
        "model": "CPH1801",
    }


def fedscale_is_active(trace, at):
    """``active[i] <= t <= inactive[i]`` for the i whose ``inactive`` is the first at or after t."""
    now = at % trace["finish_time"]
    for active, inactive in zip(trace["active"], trace["inactive"], strict=True):
        if now <= inactive:
            return active <= now
    return False


traces = st.lists(st.integers(0, 1000), min_size=2, max_size=40, unique=True).filter(lambda e: len(e) % 2 == 0)


@given(st.lists(traces, min_size=1, max_size=10), st.floats(0, 5000))
@settings(deadline=None)
def test_it_agrees_with_fedscale(tmp_path_factory, events, at):
    entries = {i: entry(sorted(e), 1001) for i, e in enumerate(events)}
    behaviour = read_behaviour(written(tmp_path_factory.mktemp("trace"), entries))
    rows = np.arange(len(entries))
    assume(all(at % 1001 not in e for e in events))  # at the very instant of an event FedScale calls both ends active
    expected = [fedscale_is_active(trace, at) for trace in entries.values()]
    assert behaviour.is_active(rows, at).tolist() == expected
    assert behaviour.is_active(rows[::-1], at).tolist() == expected[::-1]


def test_presence_follows_the_trace(tmp_path):
    """``b`` begins active: the first that happens to it is becoming inactive."""
    begins_active = {"active": [100], "inactive": [50, 200], "finish_time": 1000}
    entries = {"a": entry([10, 20], 100), "b": begins_active}
    path = written(tmp_path, entries)
    fleet = open_fleet(0, 2)
    presence = open_presence("trace", 0, 2, clock=Clock(), availability_file=path)
    devices = fleet.devices(np.arange(2))
    states = {at: presence(devices, float(at)).online.tolist() for at in (5, 15, 25, 60, 115, 150, 250, 1010)}
    assert states == {
        5: [False, True],
        15: [True, True],
        25: [False, True],
        60: [False, False],
        115: [True, True],
        150: [False, True],
        250: [False, False],
        1010: [True, True],
    }
    doing = presence(devices, 15.0)
    assert not refusals(doing, devices, Rules(charging=True, idle=True, min_battery=0.5), doing.battery).any()


def test_more_devices_than_traces_share_them(tmp_path):
    path = written(tmp_path, {0: entry([0, 500], 1000), 1: entry([500, 999], 1000)})
    presence = open_presence("trace", 0, 10_000, clock=Clock(), availability_file=path)
    online = presence(open_fleet(0, 10_000).devices(np.arange(10_000)), 250.0).online
    assert online.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"active": []}, "entry 7: 'active' must be a list of seconds"),
        ({"active": "10"}, "'active' must be a list of seconds, got 10"),
        ({"active": [1, None]}, "'active' must be a list of seconds"),
        ({"active": [True]}, "'active' must be a list of seconds"),
        ({"inactive": [5, 3]}, "'inactive' must be finite, rising seconds"),
        ({"inactive": [float("inf")]}, "'inactive' must be finite, rising seconds"),
        ({"inactive": [10**400]}, "'inactive' must be finite, rising seconds"),
        ({"inactive": [-5]}, "'inactive' must be finite, rising seconds"),
        ({"finish_time": 0}, "entry 7: 'finish_time' must be a number above 0, got 0"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    path = written(tmp_path, {3: entry([1, 2], 10), 7: {**entry([1, 2], 10), **change}})
    with pytest.raises(DataError, match=message):
        read_behaviour(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"fleet\.availability-file: cannot read"):
        read_behaviour(tmp_path / "nowhere")
