"""When phones can: laws over every presence, the shape of a day, rules one by one, and batteries."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.availability.presence import (
    BUSY,
    PRESENCES,
    Clock,
    Doing,
    Rules,
    battery_left,
    open_presence,
    refusals,
    spend,
)
from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import REASONS, count
from fl_mobile.errors import ConfigError

HOUR, DAY = 3600.0, 86_400.0
STRICT = Rules(charging=True, unmetered=True, idle=True, min_battery=0.3)
ONE_ZONE = Clock(time_zones=1)


def fleet_of(population=4000, seed=5, **options):
    return open_fleet(seed, population, **options).devices(np.arange(population))


def open_(name, clock=ONE_ZONE):
    return open_presence(name, 5, 4000, clock=clock)


@pytest.mark.parametrize("name", PRESENCES)
@given(at=st.floats(0, 400 * DAY), position=st.integers(0, 3999))
@settings(max_examples=30, deadline=None)
def test_a_device_asked_alone_does_what_it_does_among_others(name, at, position):
    devices, presence = fleet_of(), open_(name, Clock(7.5, 12))
    together, alone = presence(devices, at), presence(devices.take(np.array([position])), at)
    for column in fields(Doing):
        assert getattr(together, column.name)[position] == getattr(alone, column.name)[0]
    assert ((together.battery >= 0) & (together.battery <= 1)).all()
    assert (together.full_at <= at + 1e-6).all()


@pytest.mark.parametrize("hours", [-1e-16, 0.0, 24.0, 48.0 - 1e-14, -24.0, -1e-300])
def test_midnight_is_an_hour_of_the_day(hours):
    """House B14: −1e-16 % 24 is 24.0, which no table of 24 hours has."""
    doing = open_("diurnal")(fleet_of(200), hours * HOUR)
    near = open_("diurnal")(fleet_of(200), (hours + 0.001) * HOUR)
    assert doing.online.shape == near.online.shape == (200,)


@pytest.mark.parametrize("name", PRESENCES)
def test_days_differ_but_seeds_repeat(name):
    devices = fleet_of()
    days = [open_(name)(devices, day * DAY + 10 * HOUR) for day in range(3)]
    again = open_(name)(devices, 10 * HOUR)
    assert np.array_equal(days[0].busy, again.busy)
    assert name == "always" or (days[0].busy != days[1].busy).any()


def test_phones_that_are_always_there_break_no_rule_but_the_link():
    devices = fleet_of(profile="ideal", link="ideal")
    doing = open_("always")(devices, 12 * HOUR)
    assert not refusals(doing, devices, STRICT, doing.battery).any()


def test_the_day_has_its_shape():
    """Bonawitz et al. (MLSys 2019) saw four times as many devices available at night as in the day."""
    devices, presence = fleet_of(), open_("diurnal")
    by_hour = [presence(devices, h * HOUR + 30 * DAY) for h in range(24)]
    can = [(refusals(doing, devices, STRICT, doing.battery) == 0).mean() for doing in by_hour]
    assert min(can[h] for h in (1, 2, 3, 4)) > 4 * max(can[h] for h in (12, 15, 18))
    np.testing.assert_allclose([d.busy.mean() for d in by_hour], BUSY, atol=0.03)
    assert np.mean([d.charging.mean() for d in by_hour]) == pytest.approx(0.9 * 8.5 / 24 + 0.1 * 0.7, abs=0.03)


def test_time_zones_shift_the_night():
    devices = fleet_of(20_000)
    hours = np.arange(24)
    narrow, wide = (
        [open_("diurnal", Clock(time_zones=zones))(devices, h * HOUR).charging.mean() for h in hours]
        for zones in (1, 24)
    )
    assert np.ptp(wide) < 0.05 < 0.6 < np.ptp(narrow)
    later = [open_("diurnal", Clock(start_hour=6, time_zones=1))(devices, h * HOUR).charging.mean() for h in hours]
    np.testing.assert_allclose(np.roll(later, 6)[6:], narrow[6:], atol=0.03)


def test_what_a_phone_does_lasts_for_minutes():
    devices, presence = fleet_of(), open_("diurnal")
    assert np.array_equal(presence(devices, 10 * HOUR).busy, presence(devices, 10 * HOUR + 500).busy)
    assert (presence(devices, 10 * HOUR).busy != presence(devices, 10 * HOUR + 700).busy).any()


RULES = {
    "offline-hours": Rules(),
    "not-charging": Rules(charging=True),
    "metered": Rules(unmetered=True),
    "busy": Rules(idle=True),
    "battery": Rules(min_battery=0.6),
}


@pytest.mark.parametrize("reason", RULES)
def test_each_rule_refuses_for_its_reason_and_no_other(reason):
    devices, presence = fleet_of(), open_("diurnal")
    doing = presence(devices, 20 * HOUR)
    codes = refusals(doing, devices, RULES[reason], doing.battery)
    assert set(count(codes)) == {"offline-hours", reason}
    breaks = {
        "offline-hours": ~doing.online,
        "not-charging": ~doing.charging,
        "metered": devices.metered,
        "busy": doing.busy,
        "battery": (doing.battery < 0.6) & ~doing.charging,
    }[reason]
    assert np.array_equal(codes > 0, breaks | ~doing.online)


def test_more_rules_never_let_more_devices_in():
    devices, presence = fleet_of(), open_("diurnal")
    for at in np.arange(0, 48, 5) * HOUR:
        doing = presence(devices, at)
        strict = refusals(doing, devices, STRICT, doing.battery)
        for rules in RULES.values():
            assert ((refusals(doing, devices, rules, doing.battery) == 0) | (strict > 0)).all()


def test_batteries_drain_by_day_and_fill_by_night():
    devices, presence = fleet_of(), open_("diurnal")
    morning, evening = presence(devices, 10 * HOUR + 5 * DAY), presence(devices, 20 * HOUR + 5 * DAY)
    same_charge = (np.abs(morning.full_at - evening.full_at) < 1) & (evening.battery > 0.03)
    drained = (morning.battery - evening.battery) * devices.battery_joules
    assert same_charge.mean() > 0.7
    np.testing.assert_allclose(drained[same_charge], (10 * HOUR * devices.idle_watts)[same_charge])
    night = presence(devices, 27 * HOUR + 5 * DAY)
    assert np.median(night.battery) > 0.9 > np.median(evening.battery)


def test_federated_work_comes_off_the_battery_until_it_is_charged():
    devices, presence, ledger = fleet_of(), open_("diurnal"), Ledger()
    noon = 12 * HOUR + 5 * DAY
    doing = presence(devices, noon)
    before = battery_left(doing, devices, ledger)
    assert np.array_equal(before, doing.battery)
    for _ in range(2):
        spend(doing, devices, ledger, np.full(len(devices), 500.0), noon)
    after = battery_left(doing, devices, ledger)
    np.testing.assert_allclose(after, np.maximum(before - 1000 / devices.battery_joules, 0))
    tomorrow = presence(devices, noon + DAY)
    charged = tomorrow.full_at > noon
    left = battery_left(tomorrow, devices, ledger)
    assert charged.mean() > 0.85
    assert np.array_equal(left[charged], tomorrow.battery[charged])
    assert (left[~charged] <= tomorrow.battery[~charged]).all()
    spend(tomorrow, devices, ledger, np.full(len(devices), 1.0), noon + DAY)
    assert (ledger.column("joules")[charged] == 1).all(), "the count starts anew with every charge"
    assert (ledger.column("joules")[~charged] == 1001).all()


def test_an_ideal_battery_never_empties():
    devices, ledger = fleet_of(profile="ideal"), Ledger()
    doing = open_("diurnal")(devices, 20 * HOUR)
    spend(doing, devices, ledger, np.full(len(devices), 1e12), 20 * HOUR)
    assert (battery_left(doing, devices, ledger) == 1).all()


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("diurnl", "", "unknown fleet.availability 'diurnl'. Did you mean 'diurnal'?"),
        ("trace", "", "belong together"),
        ("always", "x", "belong together"),
    ],
)
def test_mistakes_are_named(name, file, message):
    with pytest.raises(ConfigError, match=message):
        open_presence(name, 0, 1, clock=Clock(), availability_file=file)


def test_reasons_are_distinct():
    assert len(set(REASONS)) == len(REASONS) < 256
