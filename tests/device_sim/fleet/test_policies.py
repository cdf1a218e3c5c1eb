"""Update policies: laws over every row, each rule by hand, and the bytes that a skip saves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import (
    AFTER_TRAINING,
    DECLINED,
    REASONS,
    UNAVAILABLE,
    code_of,
    count,
    first_of,
    saved_bytes,
)
from device_sim.fleet.selection.policies import POLICIES, News, Trained, Windows, open_policy
from fl_mobile.errors import ConfigError

HOUR, DAY = 3600.0, 86_400.0
SOME = np.arange(300)
NONE = News(min_new_examples=0)


def took_part(index, at_seconds, loss=1.0):
    ledger = Ledger()
    record(ledger, index, at_seconds, loss)
    return ledger


def record(ledger, index, at_seconds, loss=1.0):
    ones = np.ones(len(index))
    losses = np.broadcast_to(loss, len(index))
    ledger.took_part(index, round_num=0, at_seconds=at_seconds, task_seconds=ones, examples=ones, loss=losses)


def opened(name, plan=None, separation=0.0):
    return open_policy(name, 3, plan, min_separation_seconds=separation)


@pytest.mark.parametrize("name", POLICIES)
def test_a_device_that_never_took_part_does(name):
    policy = opened(name, separation=DAY)
    assert not policy.before(took_part(np.array([999]), 0.0), 5.0, SOME).any()
    trained = Trained(SOME, np.ones(300), np.ones(300))
    assert not policy.after(Ledger(), trained).any()


@pytest.mark.parametrize("name", POLICIES)
@given(now=st.floats(0, 10 * DAY), position=st.integers(0, 299))
@settings(max_examples=30, deadline=None)
def test_an_answer_does_not_depend_on_who_else_is_asked(name, now, position):
    policy, ledger = opened(name, separation=HOUR), took_part(SOME[::2], 0.0)
    together = policy.before(ledger, now, SOME)
    assert policy.before(ledger, now, SOME[[position]])[0] == together[position]


@pytest.mark.parametrize("name", POLICIES)
@given(st.lists(st.floats(1, 5 * DAY), min_size=1, max_size=8), st.floats(1, 3 * DAY))
@settings(max_examples=40, deadline=None)
def test_minimum_separation_is_kept_under_every_policy(name, waits, separation):
    policy, ledger = opened(name, separation=separation), Ledger()
    last, now = np.full(300, -np.inf), 0.0
    for wait in waits:
        now += wait
        codes = policy.before(ledger, now, SOME)
        takes = codes == 0
        assert (now - last[takes] >= separation).all()
        too_soon = now - last < separation
        assert (codes[too_soon] > 0).all()
        assert name != "every-round" or takes[~too_soon].all(), "and nobody else is kept out"
        record(ledger, SOME[takes], now)
        last[takes] = now


def test_every_round_is_every_round():
    assert not opened("every-round").before(took_part(SOME, 0.0), 1e-6, SOME).any()


def test_periodic_devices_take_part_once_a_day_each_at_its_own_time():
    policy, ledger = opened("periodic", Windows(period_seconds=DAY)), Ledger()
    times = np.zeros((300, 5 * 24), bool)
    for hour in range(5 * 24):
        codes = policy.before(ledger, hour * HOUR, SOME)
        assert set(count(codes)) <= {"period"}
        times[:, hour] = codes == 0
        record(ledger, SOME[codes == 0], hour * HOUR)
    assert times[:, 0].all(), "the first time is free"
    later = times[:, 1:]
    assert np.isin(later.sum(axis=1), (4, 5)).all(), "five windows, of which the first may be all but over"
    first_hours = later.argmax(axis=1)
    assert len(np.unique(first_hours)) == 24, "phases are spread over the day"
    for device in range(300):
        assert (np.diff(np.flatnonzero(later[device])) == 24).all()


def test_examples_come_in_at_each_devices_own_rate():
    plan = News(min_new_examples=50, examples_per_hour=10)
    policy, ledger = opened("event", plan), took_part(SOME, 0.0)
    takes = [policy.before(ledger, h * HOUR, SOME) == 0 for h in (0, 1, 5, 20, 200)]
    assert not takes[0].any()
    for earlier, later in pairwise(takes):
        assert (~earlier | later).all(), "what has come in stays"
    assert takes[2].mean() == pytest.approx(0.5, abs=0.1), "50 examples at a median of 10 an hour"
    assert takes[4].mean() > 0.99
    assert set(count(policy.before(ledger, HOUR, SOME))) == {"few-new-examples"}


def test_a_small_update_and_a_small_drift_are_not_sent():
    policy = opened("event", News(min_update_norm=2.0, min_loss_drift=0.1))
    index = np.arange(6)
    ledger = took_part(index[:5], 0.0, loss=np.array([1.0, 1.0, 1.0, 0.0, -1.0]))
    trained = Trained(index, np.array([1.99, 2.0, 2.0, 2.0, 2.0, 2.0]), np.array([9, 1.05, 0.89, 0.5, -1.05, 1.0]))
    reasons = [REASONS[code] for code in policy.after(ledger, trained)]
    assert reasons == ["small-update", "small-drift", "", "", "small-drift", ""]


def test_thresholds_of_zero_are_off():
    policy = opened("event", NONE)
    trained = Trained(SOME, np.zeros(300), np.ones(300))
    assert not policy.after(took_part(SOME, 0.0), trained).any()
    assert not policy.before(took_part(SOME, 0.0), 0.0, SOME).any()


def test_an_unknown_policy_is_named():
    with pytest.raises(ConfigError, match=r"unknown policy\.name 'event-triggered'\. Did you mean 'event'"):
        opened("event-triggered", NONE)


def test_bytes_saved_by_hand():
    """Two chosen devices decline, three keep their update; those that cannot are replaced and save nothing."""
    skipped = Counter({"busy": 7, "period": 1, "few-new-examples": 1, "small-update": 3})
    assert saved_bytes(skipped, download_bytes=1000, upload_bytes=10) == 2 * 1010 + 3 * 10
    assert saved_bytes(Counter(), download_bytes=1000, upload_bytes=10) == 0


@given(st.lists(st.sampled_from(REASONS)))
def test_every_reason_is_counted_and_saves_what_its_kind_saves(reasons):
    codes = np.array([code_of(reason) for reason in reasons], np.uint8)
    expected = Counter(reason for reason in reasons if reason)
    assert count(codes) == expected
    assert set(REASONS) == {"", *UNAVAILABLE, *DECLINED, *AFTER_TRAINING}
    kept_out = sum(n for reason, n in expected.items() if reason not in UNAVAILABLE)
    assert kept_out <= saved_bytes(expected, download_bytes=1, upload_bytes=1) <= 2 * kept_out


def test_the_first_reason_counts():
    yes, no = np.array([True, True, False]), np.array([False, True, False])
    assert first_of([("busy", no), ("ram", yes)], 3).tolist() == [code_of("ram"), code_of("busy"), 0]
