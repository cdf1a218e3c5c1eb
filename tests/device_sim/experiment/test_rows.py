"""A row with a parameter is one file and one row: its key, its help and its check come from there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from device_sim.experiment.toml import all_keys, parse_experiment, to_toml
from device_sim.fleet.selection.policies import POLICIES
from device_sim.fleet.selection.samplers import SAMPLERS
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.errors import ConfigError

FILE = """
from dataclasses import dataclass, replace

from device_sim.fleet.selection.policies import POLICIES
from device_sim.fleet.selection.samplers import SAMPLERS
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.parameters import check_parameters, parameter


def with_zeta(record, section):
    @dataclass(frozen=True)
    class Mine(record):
        zeta: float = parameter(0.5, "how much of it", above=0, at_most=1)

        def __post_init__(self):
            check_parameters(self, section)

    return Mine


def row(table, like, section):
    return replace(table[like], parameters=with_zeta(table[like].parameters, section))


ALGORITHM = row(ALGORITHMS, "fedavg", "server")
RULE = row(AGGREGATORS, "median", "server")
SAMPLER = row(SAMPLERS, "uniform", "selection")
POLICY = row(POLICIES, "every-round", "policy")
"""
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "algorithm": (ALGORITHMS, "ALGORITHM", "server.algorithm"),
    "aggregation rule": (AGGREGATORS, "RULE", "server.aggregation"),
    "sampler": (SAMPLERS, "SAMPLER", "selection.sampler"),
    "policy": (POLICIES, "POLICY", "policy.name"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_file_and_a_row_give_a_key_with_help_and_check(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, name, decides = ROWS[kind]
    key = decides.partition(".")[0] + ".zeta"
    assert key not in all_keys()
    (tmp_path / "mine.py").write_text(FILE)
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    assert spec
    assert spec.loader
    mine = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mine", mine)
    spec.loader.exec_module(mine)
    monkeypatch.setitem(table, "mine", getattr(mine, name))

    assert key in all_keys()
    chosen = f"{decides}=mine"
    experiment = parse_experiment("", [chosen, f"{key}=0.7"])
    assert "zeta = 0.7  # how much of it" in to_toml(experiment, comments=True)
    assert parse_experiment(to_toml(experiment)) == experiment
    assert experiment != parse_experiment("", [chosen])
    for changes, told in (
        ([chosen, f"{key}=2"], "zeta must be above 0 and ≤ 1, got 2"),
        ([chosen, f"{key}=nan"], "zeta must be finite, got nan"),
        ([chosen, f"{key}=much"], "zeta must be a number, got 'much'"),
        ([f"{key}=0.7"], f"{key} does nothing with {decides}"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_experiment("", changes)
        assert told in str(caught.value)
