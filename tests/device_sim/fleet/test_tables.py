"""Laws over every row of the profile and link tables, and over energy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.devices.timing import Workload, fits_ram, train_seconds

SOME = np.arange(200)
WORK = Workload(forward_macs=2_000_000, parameters=100_000, activations=30_000)


def some(profile="mixed", link="mixed", seed=3):
    return open_fleet(seed, 1000, profile=profile, link=link).devices(SOME)


@pytest.mark.parametrize("table", [PROFILES, LINKS])
def test_shares_of_the_mix_add_up_and_ideal_is_not_in_it(table):
    assert sum(row.share for row in table.values()) == pytest.approx(1)
    assert table["ideal"].share == 0
    assert all(row.share > 0 for name, row in table.items() if name != "ideal")


@pytest.mark.parametrize("name", LINKS)
@given(packet_bytes=st.integers(1, 10**9), round_num=st.integers(0, 10**6))
def test_twice_the_bytes_take_twice_the_time_on_air_besides_latency(name, packet_bytes, round_num):
    devices = some(link=name)
    air = devices.air(3, round_num)
    for seconds in (devices.down_seconds, devices.up_seconds):
        once, twice = (seconds(n * packet_bytes, air) - devices.latency_s for n in (1, 2))
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)  # rtol: the latency is added and taken off again
        assert (seconds(packet_bytes + 10**6, air) > seconds(packet_bytes, air)).all() or name == "ideal"


@pytest.mark.parametrize("name", LINKS)
def test_transfers_vary_around_the_device_and_nothing_on_ideal(name):
    devices = some(link=name)
    seconds = np.array([devices.up_seconds(10**6, devices.air(0, r)) for r in range(60)])
    if name == "ideal":
        assert not seconds.any()
        return
    assert (seconds.std(axis=0) > 0).all()
    rate = 8e6 / (seconds - devices.latency_s)
    np.testing.assert_allclose(np.median(rate / devices.up_bps), 1, rtol=0.05)


@pytest.mark.parametrize("name", LINKS)
def test_uploads_break_off_as_often_as_the_table_says(name):
    devices = open_fleet(1, 100_000, link=name).devices(np.arange(100_000))
    lost = devices.air(1, 0).lost.mean()
    sigma = np.sqrt(LINKS[name].loss / 1e5)
    assert abs(lost - LINKS[name].loss) <= 4 * sigma


def test_links_are_listed_from_best_to_worst_upload():
    assert all(a.up_bps > b.up_bps for a, b in pairwise(LINKS.values()))


@pytest.mark.parametrize("name", PROFILES)
@given(examples=st.integers(1, 10_000), epochs=st.integers(1, 20))
def test_training_time_is_proportional_to_the_work(name, examples, epochs):
    devices = some(name)
    once = train_seconds(WORK.flops(np.full(200, examples), epochs), devices.train_flops_per_s)
    twice = train_seconds(WORK.flops(np.full(200, 2 * examples), epochs), devices.train_flops_per_s)
    np.testing.assert_allclose(twice, 2 * once)
    assert (once > 0).all() or name == "ideal"


def test_a_slower_class_trains_longer():
    """The same device of the same seed, class by class: the table is listed from fast to slow."""
    by_class = [train_seconds(WORK.flops(SOME + 1, 1), some(name).train_flops_per_s) for name in PROFILES]
    medians = [np.median(seconds) for seconds in by_class]
    assert all(a < b for a, b in pairwise(medians))


def test_work_by_hand():
    """2 MMAC forward are 4 MFLOP; three times that for a step; 10 examples, 5 epochs; on 1 GFLOP/s."""
    flops = WORK.flops(np.array([10]), 5)
    assert flops.tolist() == [3 * 4e6 * 50]
    assert train_seconds(flops, np.array([1e9])).tolist() == [0.6]


@pytest.mark.parametrize("name", PROFILES)
def test_a_model_fits_until_it_does_not(name):
    devices = some(name)
    limit = PROFILES[name].ram_bytes * 0.25
    assert fits_ram(limit, devices.ram_bytes, 0.25).all()
    assert not fits_ram(limit * 1.001, devices.ram_bytes, 0.25).any() or name == "ideal"


@given(batch=st.integers(1, 512), slots=st.integers(0, 2))
def test_memory_grows_with_batch_and_optimizer(batch, slots):
    sizes = [
        Workload(1, 10**6, 10**4, s).ram_bytes(b) for s, b in ((slots, batch), (slots + 1, batch), (slots, 2 * batch))
    ]
    assert sizes[1] - sizes[0] == 4 * 10**6
    assert sizes[2] - sizes[0] == 8 * 10**4 * batch


@pytest.mark.parametrize("name", LINKS)
@given(packet_bytes=st.integers(1, 10**8))
def test_energy_of_transfers(name, packet_bytes):
    devices = some(link=name)
    for joules, seconds in ((devices.down_joules, devices.down_seconds), (devices.up_joules, devices.up_seconds)):
        spent = joules(packet_bytes, seconds(packet_bytes))
        more = joules(2 * packet_bytes, seconds(2 * packet_bytes))
        assert not joules(0, seconds(0)).any(), "no bytes, no radio"
        assert ((spent > 0) & (more > spent)).all() or name == "ideal"
    assert not spent.any() or name != "ideal"


def test_energy_by_hand():
    """One megabyte up over 4G at exactly 8 Mbit/s: 8 Mbit x 0.438 J, 1 s x 1.288 W, and the tail."""
    devices = some("mid", "4g")
    expected = 8 * 0.438 + 1.288 + 12.3
    np.testing.assert_allclose(devices.up_joules(10**6, np.ones(200)), expected)


def test_wifi_costs_the_battery_less_than_any_cellular_link():
    joules = {name: np.median(d.up_joules(10**6, d.up_seconds(10**6))) for name in LINKS if (d := some(link=name))}
    assert joules["ideal"] < joules["wifi"] < min(joules[name] for name in ("5g", "4g", "3g"))
