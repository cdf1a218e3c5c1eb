"""Every option is checked where it is made, and its message names the key of the experiment file."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from device_sim.fleet.availability.presence import Clock, Rules
from device_sim.fleet.selection.oort import Guided
from device_sim.fleet.selection.policies import POLICIES, News, Windows
from device_sim.fleet.selection.samplers import SAMPLERS, Candidates
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.aggregation.centered_clipping import Clipping
from fl_mobile.aggregation.fltrust import Root
from fl_mobile.aggregation.multi_krum import Suspicion
from fl_mobile.aggregation.order_statistics import Trimming
from fl_mobile.algorithms import ALGORITHMS, ServerPlan
from fl_mobile.algorithms.adaptive import Adaptive, AdaptiveMean
from fl_mobile.algorithms.averaging import Momentum, Proximal
from fl_mobile.algorithms.drift import Dynamic
from fl_mobile.errors import ConfigError

WRONG = [
    (Rules, "min_battery", "fleet", [-0.1, 1.1, math.nan]),
    (Clock, "start_hour", "fleet", [-1, 24, math.nan]),
    (Clock, "time_zones", "fleet", [0, 25]),
    (Windows, "period_seconds", "policy", [0, -1, math.nan]),
    *((News, f.name, "policy", [-1, math.nan]) for f in fields(News)),
    *((kind, "learning_rate", "server", [0, math.nan]) for kind in (ServerPlan, Proximal, Momentum, Dynamic)),
    *((kind, "learning_rate", "server", [0, math.inf]) for kind in (Adaptive, AdaptiveMean)),
    *((kind, "beta1", "server", [-0.1, 1, math.nan]) for kind in (Adaptive, AdaptiveMean)),
    *((kind, "tau", "server", [0, math.nan]) for kind in (Adaptive, AdaptiveMean)),
    (AdaptiveMean, "beta2", "server", [-0.1, 1, math.nan]),
    (Proximal, "proximal_mu", "server", [-0.1, math.nan]),
    (Momentum, "momentum", "server", [-0.1, 1, math.nan]),
    (Dynamic, "alpha", "server", [0, math.nan]),
    (Trimming, "trim", "server", [-0.1, 0.5, math.nan]),
    (Suspicion, "malicious_share", "server", [0, 0.5, math.nan]),
    (Clipping, "clip_radius", "server", [-1, math.nan]),
    (Clipping, "clip_steps", "server", [0, 101]),
    (Root, "public_examples", "server", [0]),
    (Candidates, "candidates", "selection", [-1]),
    (Guided, "exploration", "selection", [-0.1, 1.1, math.nan]),
    (Guided, "exploration_decay", "selection", [0, 1.1, math.nan]),
    (Guided, "exploration_min", "selection", [-0.1, 1.1, math.nan]),
    (Guided, "round_percentile", "selection", [0, 101, math.nan]),
    (Guided, "pacer_rounds", "selection", [0]),
    (Guided, "pacer_step", "selection", [-1, math.nan]),
    (Guided, "round_penalty", "selection", [-1, math.nan]),
]


@pytest.mark.parametrize(("record", "name", "section", "values"), WRONG)
def test_a_value_out_of_range_is_named_by_its_key(record, name, section, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"{section}.{name.replace('_', '-')} must be .*got {value}"):
            record(**{name: value})


TABLES = (ALGORITHMS, AGGREGATORS, SAMPLERS, POLICIES)
RECORDS = {row.parameters: None for table in TABLES for row in table.values()}


@pytest.mark.parametrize("record", [Rules, Clock, *RECORDS])
def test_every_number_has_a_wrong_value_here(record):
    numbers = {f.name for f in fields(record) if not isinstance(f.default, (bool, str))}
    assert numbers == {name for kind, name, *_ in WRONG if kind is record}
