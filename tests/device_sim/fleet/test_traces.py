"""Files of devices: what is read, what is drawn, and every mistake named by line and column."""

from __future__ import annotations

import pickle
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.devices.traces import COLUMNS, FEDSCALE_MACS, read_devices, row_of
from fl_mobile.errors import DataError


def written(folder, content, name="devices.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_says_what_devices_are(tmp_path):
    path = written(
        tmp_path,
        "\ufefflink, up_bps,train_flops_per_s,profile,loss\r\n"
        "4g,1e6,2e9,low,0\r\n,,,,\r\n\r\nwifi,,5000000000,,0.25\r\n",
    )
    drawn = open_fleet(1, 3).devices(np.arange(3))
    read = open_fleet(1, 3, devices_file=path).devices(np.arange(3))
    assert read.up_bps.tolist() == [1e6, drawn.up_bps[1], read.up_bps[2]]
    assert read.train_flops_per_s.tolist() == [2e9, drawn.train_flops_per_s[1], 5e9]
    assert read.loss.tolist() == [0, drawn.loss[1], 0.25]
    assert read.metered.tolist() == [True, drawn.metered[1], False]
    assert read.battery_joules[1] == drawn.battery_joules[1]
    low = open_fleet(1, 3, profile="low").devices(np.arange(3))
    assert read.ram_bytes[0] == low.ram_bytes[0], "an empty column is drawn for the profile of the file"


def test_every_column_of_a_csv_is_heard(tmp_path):
    numbers = {name: 0.5 for name in COLUMNS if name not in ("profile", "link")}
    path = written(tmp_path, f"{','.join(numbers)}\n{','.join(map(str, numbers.values()))}\n")
    devices = open_fleet(0, 1, devices_file=path).devices(np.arange(1))
    assert {name: getattr(devices, name)[0] for name in numbers} == numbers


@given(st.integers(1, 50), st.integers(1, 200))
def test_devices_take_rows_in_order_or_drawn_ones(rows, population):
    row = row_of(3, population, rows, np.arange(population))
    assert ((row >= 0) & (row < rows)).all()
    assert population > rows or (row == np.arange(population)).all()


def test_drawn_rows_are_drawn_evenly():
    """Chi-squared's 99.9th percentile at nine degrees of freedom is 27.9."""
    found = np.bincount(row_of(0, 10**6, 10, np.arange(10_000)), minlength=10)
    assert ((found - 1000) ** 2 / 1000).sum() < 27.9


MISTAKES = {
    "": "no devices",
    "up_bps\n": "no devices",
    "up_bits\n1\n": "line 1: unknown column 'up_bits'. Did you mean 'up_bps'?",
    "up_bps,up_bps\n1,1\n": "line 1: column 'up_bps' is there twice",
    "up_bps,loss\n1,0\n1\n": "line 3: 1 cells where the header has 2",
    "up_bps,loss\n1,0\n1,0,0\n": "line 3: 3 cells",
    "up_bps\n1\nfast\n": "line 3, column up_bps: expected a number, got 'fast'",
    "up_bps\n-1\n": "line 2, column up_bps: must be above 0, got -1",
    "up_bps\n0\n": "line 2, column up_bps: must be above 0",
    "latency_s\n-0.1\n": "column latency_s: must be ≥ 0, got -0.1",
    "loss\n1\n": r"column loss: must be in \[0, 1\), got 1",
    "up_bps\ninf\n": "column up_bps: must be finite",
    "up_bps\nnan\n": "column up_bps: must be finite",
    "link\n6g\n": "line 2, column link: unknown link '6g'. Did you mean",
    "profile\nentry\nmild\n": "line 3, column profile: unknown profile 'mild'. Did you mean 'mid'",
    'up_bps\n"1\n': "expected comma-separated|unexpected end",
    b"up_bps\n\xff\n": "byte 7 is not UTF-8",
}


@pytest.mark.parametrize("content", MISTAKES)
def test_a_mistake_in_a_csv_is_named_with_its_place(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=f"(?i){MISTAKES[content]}") as error:
        read_devices(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"fleet\.devices-file: cannot read .*nowhere\.csv"):
        read_devices(tmp_path / "nowhere.csv")


@given(st.text(alphabet='up_bs,los"\n\r 1.5e-', max_size=80) | st.binary(max_size=60))
@settings(deadline=None)
def test_any_text_is_read_or_refused(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("csv"), content)
    with suppress(DataError):
        assert len(read_devices(path)) >= 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_fedscales_capacities(tmp_path, protocol):
    """A FedScale device infers in 150 ms and has 8,000 kbit/s: by FedScale's own formulas, in seconds."""
    entries = {432802: {"computation": 150.0, "communication": 8000}, "b": {"computation": 1, "communication": 1.0}}
    path = written(tmp_path, pickle.dumps(entries, protocol), "client_device_capacity")
    devices = open_fleet(0, 2, devices_file=path).devices(np.arange(2))
    fedscale_train_seconds = 3.0 * 20 * 150.0 / 1000
    assert 3 * 2 * FEDSCALE_MACS * 20 / devices.train_flops_per_s[0] == pytest.approx(fedscale_train_seconds)
    packet_bytes = 10_000_000
    fedscale_seconds = packet_bytes / 1024 * 8 / 8000
    assert devices.up_seconds(packet_bytes)[0] - devices.latency_s[0] == pytest.approx(fedscale_seconds)
    assert devices.down_bps.tolist() == devices.up_bps.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected FedScale's"),
        ({}, "expected FedScale's"),
        ({1: 2}, "entry 1: expected a dict, got int"),
        ({1: {"computation": 5.0}}, "entry 1: 'communication' must be a number above 0, got None"),
        ({1: {"computation": 0.0, "communication": 1.0}}, "entry 1: 'computation' must be"),
        ({1: {"computation": True, "communication": 1.0}}, "entry 1: 'computation' must be"),
        ({1: {"computation": float("nan"), "communication": 1.0}}, "entry 1: 'computation' must be"),
        ({1: {"computation": 10**400, "communication": 1.0}}, "entry 1: 'computation' must be"),
        ({1: {"computation": "5", "communication": 1.0}}, "entry 1: 'computation' must be"),
    ],
)
def test_a_pickle_that_is_no_capacity_trace_is_named(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        read_devices(written(tmp_path, pickle.dumps(value), "capacity"))
