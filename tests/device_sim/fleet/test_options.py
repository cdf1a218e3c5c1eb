"""Every option is checked where it is made, and its message names the key of the experiment file."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from device_sim.fleet.availability.presence import Clock, Rules
from device_sim.fleet.selection.cohort import SamplerPlan
from device_sim.fleet.selection.policies import PolicyPlan
from fl_mobile.errors import ConfigError

WRONG = [
    (Rules, "min_battery", "fleet", [-0.1, 1.1, math.nan]),
    (Clock, "start_hour", "fleet", [-1, 24, math.nan]),
    (Clock, "time_zones", "fleet", [0, 25]),
    (PolicyPlan, "period_seconds", "policy", [0, -1, math.nan]),
    *((PolicyPlan, f.name, "policy", [-1, math.nan]) for f in fields(PolicyPlan) if f.name != "period_seconds"),
    (SamplerPlan, "candidates", "selection", [-1]),
    (SamplerPlan, "exploration", "selection", [-0.1, 1.1, math.nan]),
    (SamplerPlan, "exploration_decay", "selection", [0, 1.1, math.nan]),
    (SamplerPlan, "exploration_min", "selection", [-0.1, 1.1, math.nan]),
    (SamplerPlan, "round_percentile", "selection", [0, 101, math.nan]),
    (SamplerPlan, "pacer_rounds", "selection", [0]),
    (SamplerPlan, "pacer_step", "selection", [-1, math.nan]),
    (SamplerPlan, "round_penalty", "selection", [-1, math.nan]),
]


@pytest.mark.parametrize(("record", "name", "section", "values"), WRONG)
def test_a_value_out_of_range_is_named_by_its_key(record, name, section, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"{section}.{name.replace('_', '-')} must be .*got {value}"):
            record(**{name: value})


@pytest.mark.parametrize("record", [Rules, Clock, PolicyPlan, SamplerPlan])
def test_every_number_has_a_wrong_value_here(record):
    numbers = {f.name for f in fields(record) if not isinstance(f.default, bool)}
    assert numbers == {name for kind, name, *_ in WRONG if kind is record}
