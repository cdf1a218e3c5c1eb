"""One round on many phones: a hand computation, laws, and the gate that decides who takes part in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.availability.gate import Gate
from device_sim.fleet.availability.presence import Clock, Rules, open_presence, spend
from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.devices.links import Air
from device_sim.fleet.devices.mishaps import Mishaps, draw_mishaps
from device_sim.fleet.devices.profiles import GIB
from device_sim.fleet.devices.task import send, train_on
from device_sim.fleet.devices.traces import DeviceRows
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import count

SOME = np.arange(400)
ANY = Rules()
CALM = Mishaps(np.zeros(400, bool), np.full(400, np.inf))
CLEAR = Air(np.ones(400), np.ones(400), np.zeros(400, bool), np.zeros(400))


def phones(**options):
    return open_fleet(4, 400, **options).devices(SOME)


def run(devices, *, asked=0.0, air=CLEAR, mishaps=CALM, flops=1e10, down=100_000, up=50_000):
    full = np.full(len(devices), 1.0)
    training = train_on(devices, asked * full, air, mishaps, flops * full, (down * full).astype(np.int64))
    return training, send(devices, training, air, (up * full).astype(np.int64))


def by_hand() -> DeviceRows:
    one = {"train_flops_per_s": 2e9, "down_bps": 8e6, "up_bps": 4e6, "latency_s": 0.5, "train_watts": 3.0}
    unset = np.full(1, -1)
    return DeviceRows(unset, np.full(1, 3), {name: np.array([value]) for name, value in one.items()})  # 3 is 4g


def test_a_round_by_hand():
    """Asked at 100 s: 2 MB at 8 Mbit/s and 0.5 s; 10 GFLOP at 2 GFLOP/s; 1 MB at 4 Mbit/s and 0.5 s."""
    fleet = replace(open_fleet(0, 1), rows=by_hand())
    devices = fleet.devices(np.array([0]))
    air, calm = (
        Air(*(column[:1] for column in (CLEAR.down_factor, CLEAR.up_factor, CLEAR.lost, CLEAR.lost_share))),
        Mishaps(CALM.silent[:1], CALM.lasts_seconds[:1]),
    )
    training, sending = run(devices, asked=100.0, air=air, mishaps=calm, flops=10e9, down=2_000_000, up=1_000_000)
    assert training.downloaded.tolist() == [102.5]
    assert training.trained.tolist() == [107.5]
    assert sending.uploaded.tolist() == [110.0]
    assert sending.arrived.tolist() == [True]
    assert sending.sent_bytes.tolist() == [1_000_000]
    np.testing.assert_allclose(training.joules, 16 * 0.052 + 2.5 * 1.288 + 12.3 + 5 * 3)
    np.testing.assert_allclose(sending.joules, 8 * 0.438 + 2.5 * 1.288 + 12.3)


def test_ideal_phones_are_done_when_they_are_asked_and_spend_nothing():
    training, sending = run(phones(profile="ideal", link="ideal"), asked=7.0)
    assert (sending.uploaded == 7).all()
    assert sending.arrived.all()
    assert not (training.joules + sending.joules).any()


@given(st.floats(0, 1e6), st.integers(1, 10**8), st.integers(1, 10**8), st.floats(1, 1e12))
@settings(deadline=None)
def test_more_of_anything_is_later_and_costs_more(asked, down, up, flops):
    devices = phones()
    training, sending = run(devices, asked=asked, down=down, up=up, flops=flops)
    assert (asked <= training.downloaded).all()
    assert (training.downloaded <= training.trained).all()
    assert (training.trained <= sending.uploaded).all()
    for change in ({"down": 2 * down + 1000}, {"up": 2 * up + 1000}, {"flops": 2 * flops + 1e9}):
        more_training, more = run(devices, **{"asked": asked, "down": down, "up": up, "flops": flops, **change})
        assert (more.uploaded > sending.uploaded).all()
        assert (more_training.joules + more.joules > training.joules + sending.joules).all()


def test_a_slower_phone_is_later_and_a_slower_link_is_later():
    devices = phones()
    _, sending = run(devices)
    for column in ("train_flops_per_s", "down_bps", "up_bps"):
        _, slower = run(replace(devices, **{column: getattr(devices, column) / 2}))
        assert (slower.uploaded > sending.uploaded).all()


def test_the_silent_neither_finish_nor_spend():
    mishaps = Mishaps(SOME % 2 == 0, CALM.lasts_seconds)
    training, sending = run(phones(), mishaps=mishaps)
    assert np.array_equal(training.finished, SOME % 2 == 1)
    assert np.isinf(training.downloaded[::2]).all()
    assert not (training.joules + sending.joules + sending.sent_bytes)[::2].any()


def test_training_that_is_broken_off_costs_what_it_took_and_sends_nothing():
    devices = phones()
    whole, _ = run(devices)
    seconds = whole.trained - whole.downloaded
    training, sending = run(devices, mishaps=Mishaps(CALM.silent, seconds / 4))
    assert not training.finished.any()
    np.testing.assert_allclose(training.trained - training.downloaded, seconds / 4)
    download_joules = devices.down_joules(100_000, devices.down_seconds(100_000))
    np.testing.assert_allclose(training.joules - download_joules, devices.train_watts * seconds / 4)
    assert not sending.arrived.any()
    assert not (sending.sent_bytes + sending.joules).any()
    assert np.isinf(sending.uploaded).all()


def test_an_upload_that_breaks_off_has_sent_a_part():
    devices = phones()
    _, whole = run(devices)
    broken = Air(CLEAR.down_factor, CLEAR.up_factor, np.ones(400, bool), np.full(400, 0.3))
    _, sending = run(devices, air=broken)
    assert not sending.arrived.any()
    assert (sending.sent_bytes == 15_000).all()
    assert (sending.joules < whole.joules).all()
    assert (sending.uploaded < whole.uploaded).all()


def test_interruptions_come_at_their_rate_and_hit_long_tasks_more():
    index = np.arange(100_000)
    mishaps = draw_mishaps(0, 1, index, dropout_rate=0.1, interruptions_per_hour=0.5)
    assert mishaps.silent.mean() == pytest.approx(0.1, abs=0.005)
    assert mishaps.lasts_seconds.mean() == pytest.approx(7200, rel=0.02)
    assert (mishaps.lasts_seconds < 360).mean() == pytest.approx(1 - np.exp(-0.05), abs=0.003)
    alone = draw_mishaps(0, 1, index[[77]], dropout_rate=0.1, interruptions_per_hour=0.5)
    assert alone.lasts_seconds[0] == mishaps.lasts_seconds[77]
    assert np.isinf(draw_mishaps(0, 1, index, dropout_rate=0, interruptions_per_hour=0).lasts_seconds).all()
    assert not draw_mishaps(0, 1, index, dropout_rate=0, interruptions_per_hour=0).silent.any()


def gate_of(fleet, *, ram_bytes=0.0, rules=ANY, presence="always"):
    opened = open_presence(presence, fleet.seed, fleet.population, clock=Clock())
    return Gate(fleet, opened, rules, ram_bytes, 0.25)


def test_a_model_that_does_not_fit_makes_small_phones_ineligible():
    fleet = open_fleet(0, 5000)
    index = np.arange(5000)
    codes = gate_of(fleet, ram_bytes=1.2 * GIB).refusals(Ledger(), 0.0, index)
    small = fleet.devices(index).ram_bytes < 4.8 * GIB
    assert 0 < small.mean() < 1
    assert np.array_equal(codes > 0, small)
    assert set(count(codes)) == {"ram"}


def test_the_gate_asks_for_memory_first():
    fleet = open_fleet(0, 3000)
    index = np.arange(3000)
    strict = {"rules": Rules(unmetered=True), "presence": "diurnal"}
    loose, tight = (
        count(gate_of(fleet, ram_bytes=ram_bytes, **strict).refusals(Ledger(), 86_400.0, index))
        for ram_bytes in (0.0, 1.2 * GIB)
    )
    assert set(loose) == {"offline-hours", "metered"}
    assert set(tight) == {"offline-hours", "metered", "ram"}
    assert tight["ram"] == (fleet.devices(index).ram_bytes < 4.8 * GIB).sum()


def test_the_gate_knows_what_federated_work_took():
    fleet = open_fleet(0, 1000)
    index, noon = np.arange(1000), 12 * 3600.0
    gate, ledger = gate_of(fleet, rules=Rules(min_battery=0.3), presence="diurnal"), Ledger()
    before = count(gate.refusals(ledger, noon, index))["battery"]
    devices = fleet.devices(index)
    spend(gate.presence(devices, noon), devices, ledger, 0.6 * devices.battery_joules, noon)
    assert count(gate.refusals(ledger, noon, index))["battery"] > before + 100
