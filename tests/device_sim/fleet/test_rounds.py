"""All parts together: the same run from its checkpoint, whatever was asked in between, and flat memory."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from device_sim.fleet.ledger import Ledger
from device_sim.fleet.selection.policies import POLICIES
from device_sim.fleet.selection.samplers import SAMPLERS
from tests.device_sim.fleet.dry_rounds import new_run, play


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(sampler, policy):
    whole = new_run(300)
    for round_num in range(12):
        play(whole, round_num, sampler=sampler, policy=policy, wanted=15)
    assert sum(map(len, whole.cohorts)) > 20
    first = new_run(300)
    for round_num in range(6):
        play(first, round_num, sampler=sampler, policy=policy, wanted=15)
    second = new_run(300)
    second.ledger = Ledger.from_json(json.loads(json.dumps(first.ledger.as_json())))
    second.now = first.now
    for round_num in range(6, 12):
        play(second, round_num, sampler=sampler, policy=policy, wanted=15)
    assert first.cohorts + second.cohorts == whole.cohorts
    assert first.skipped + second.skipped == whole.skipped
    assert second.ledger.as_json() == whole.ledger.as_json()
    assert (second.now, first.joules + second.joules) == (whole.now, pytest.approx(whole.joules))


def test_a_day_loses_devices_for_every_reason():
    run = new_run(400)
    for round_num in range(60):
        play(run, round_num, sampler="uniform", policy="event", wanted=20)
    expected = {"offline-hours", "not-charging", "metered", "busy", "ram", "min-separation", "few-new-examples"}
    assert expected | {"small-update"} <= set(run.skipped)
    assert run.now > 24 * 3600
    assert run.joules > 0


def test_policies_keep_devices_out_and_every_round_does_not():
    sizes = {}
    for policy in POLICIES:
        run = new_run(200)
        for round_num in range(10):
            play(run, round_num, sampler="uniform", policy=policy, wanted=20)
        sizes[policy] = sum(map(len, run.cohorts))
    assert max(sizes["periodic"], sizes["event"]) < sizes["every-round"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_memory_is_flat_in_the_population(sampler):
    """A million devices in less memory than one byte for each."""
    run = new_run(1_000_000)
    play(run, 0, sampler=sampler, policy="event", wanted=200)  # NumPy loads parts of itself at first use
    tracemalloc.start()
    for round_num in range(1, 4):
        play(run, round_num, sampler=sampler, policy="event", wanted=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 900_000
