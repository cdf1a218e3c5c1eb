"""Two keys with lists of values: a table and a picture, the base in its place, failures told."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.sweep.heat_map import draw_heat_map, grid_of
from device_sim.sweep.results import Scores, TrialResult

SEARCH = {"server.aggregation": ["mean", "median"], "attack.name": ["none", "alie", "ipm"]}


def result(number, accuracy, **params):
    scores = None
    if accuracy is not None:
        scores = Scores(accuracy, *[0.0] * 9, rounds_to_target=(), bytes_to_target=())
    named = {key.replace("_", ".", 1): value for key, value in params.items()}
    return TrialResult(number, f"t{number}", named, "", "diverged" if accuracy is None else "", scores)


RESULTS = [
    result(0, 0.9),
    result(1, 0.5, server_aggregation="mean", attack_name="alie"),
    result(2, None, server_aggregation="mean", attack_name="ipm"),
    result(3, 0.875, server_aggregation="median", attack_name="none"),
    result(4, 0.8, server_aggregation="median", attack_name="alie"),
]


def test_the_base_stands_where_its_own_values_are(tmp_path: Path) -> None:
    grid = grid_of(RESULTS, parse_experiment(""), SEARCH)
    assert grid is not None
    assert grid.told() == [("mean", "90.0", "50.0", "failed"), ("median", "87.5", "80.0", "–")]
    other = grid_of(RESULTS, parse_experiment("", ["attack.name=garbage"]), SEARCH)
    assert other is not None
    assert other.told()[0] == ("mean", "–", "50.0", "failed")
    draw_heat_map(grid, tmp_path / "heat-map.svg")
    text = (tmp_path / "heat-map.svg").read_text()
    assert "<svg" in text
    for suffix in (".png",):
        draw_heat_map(grid, tmp_path / f"map{suffix}")
        assert (tmp_path / f"map{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    "search",
    [
        {"attack.name": ["none", "alie"]},
        {"attack.name": ["none", "alie"], "train.epochs": {"low": 1, "high": 2}},
        {**SEARCH, "train.epochs": [1, 2]},
        {},
    ],
)
def test_other_sweeps_have_none(search) -> None:
    assert grid_of(RESULTS, parse_experiment(""), search) is None
