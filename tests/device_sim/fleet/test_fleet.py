"""A device is a function of (seed, index): alone or among others, in a small fleet or a large one."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.devices.columns import Devices
from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.draws import lognormals, normals, pair
from fl_mobile.errors import ConfigError

MANY = np.arange(100_000)


def same(one: Devices, two: Devices) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(Devices))


@given(st.lists(st.integers(0, 10**6 - 1), min_size=1, max_size=50), st.data())
@settings(deadline=None)
def test_a_device_drawn_alone_is_the_device_drawn_among_others(index, data):
    fleet = open_fleet(7, 10**6)
    among = fleet.devices(np.array(index))
    position = data.draw(st.integers(0, len(index) - 1))
    alone = fleet.devices(np.array([index[position]]))
    assert same(among.take(np.array([position])), alone)
    air, lone_air = among.air(7, 4), alone.air(7, 4)
    assert air.up_factor[position] == lone_air.up_factor[0]
    assert air.lost[position] == lone_air.lost[0]


def test_a_device_does_not_depend_on_the_population():
    assert same(open_fleet(1, 100).devices(np.arange(100)), open_fleet(1, 10**6).devices(np.arange(100)))


def test_another_seed_is_another_fleet():
    one, two = (open_fleet(seed, 1000).devices(np.arange(1000)) for seed in (1, 2))
    assert (one.profile != two.profile).mean() > 0.5
    assert (one.up_bps != two.up_bps).all()


@pytest.mark.parametrize(("column", "table"), [("profile", PROFILES), ("link", LINKS)])
def test_shares_of_the_mix(column, table):
    """Pearson's chi-squared below its 99.9th percentile: 18.5 for four degrees of freedom, 16.3 for three."""
    found = np.bincount(getattr(open_fleet(5, len(MANY)).devices(MANY), column), minlength=len(table))
    expected = np.array([row.share for row in table.values()]) * len(MANY)
    assert found[0] == 0, "ideal is not in the mix"
    assert ((found[1:] - expected[1:]) ** 2 / expected[1:]).sum() < 16.3


@pytest.mark.parametrize("name", [n for n in PROFILES if n != "ideal"])
def test_speeds_have_the_median_and_the_spread_of_their_class(name):
    logs = np.log(open_fleet(2, len(MANY), profile=name).devices(MANY).train_flops_per_s)
    assert np.median(logs) == pytest.approx(np.log(PROFILES[name].train_flops_per_s), abs=0.01)
    assert logs.std() == pytest.approx(PROFILES[name].flops_sigma, rel=0.03)


@pytest.mark.parametrize("name", [n for n in LINKS if n != "ideal"])
def test_links_have_the_medians_and_the_spread_of_their_kind(name):
    devices, link = open_fleet(2, len(MANY), link=name).devices(MANY), LINKS[name]
    for column, median, sigma in (
        (devices.up_bps, link.up_bps, link.rate_sigma),
        (devices.down_bps, link.down_bps, link.rate_sigma),
        (devices.latency_s, link.latency_s, link.latency_sigma),
    ):
        assert np.median(column) == pytest.approx(median, rel=0.02)
        assert np.log(column).std() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("name", PROFILES)
def test_one_class_for_all(name):
    devices = open_fleet(0, 50, profile=name, link="ideal").devices(np.arange(50))
    assert {list(PROFILES)[p] for p in devices.profile} == {name}
    assert {list(LINKS)[k] for k in devices.link} == {"ideal"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "midd"}, "unknown fleet.profile 'midd'. Did you mean 'mid'?"),
        ({"link": "wi-fi"}, "unknown fleet.link 'wi-fi'. Did you mean 'wifi'?"),
        ({"population": 0}, "at least one device"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        open_fleet(0, options.pop("population", 10), **options)


def test_memory_does_not_grow_with_the_population():
    def peak_bytes(population):
        tracemalloc.start()
        open_fleet(0, population).devices(np.arange(1000))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1000)  # first use allocates what later ones share
    assert peak_bytes(1_000_000) <= 1.1 * peak_bytes(1000) < 2_000_000


def test_a_place_in_the_round_does_not_matter_but_the_round_does():
    devices = open_fleet(0, 1000).devices(np.arange(1000))
    first, again, next_round = devices.air(0, 1), devices.take(np.arange(999, -1, -1)).air(0, 1), devices.air(0, 2)
    assert np.array_equal(first.down_factor, again.down_factor[::-1])
    assert (first.down_factor != next_round.down_factor).mean() > 0.99
    assert (first.down_factor != first.up_factor).mean() > 0.99


def test_normals_are_normal():
    drawn = normals(9, "x", index=MANY)
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert np.abs(drawn).max() <= 3
    assert np.mean(drawn < 1) == pytest.approx(0.8413, abs=0.005)
    assert (lognormals(0.0, 9, "x", index=MANY) == 1).all()


def test_pairs_do_not_collide():
    devices, days = np.meshgrid(np.arange(1000), np.arange(-5, 200))
    assert len(np.unique(pair(devices.ravel(), days.ravel()))) == devices.size
