"""Comparison by hand: keys that differ, paired differences, and what the target cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import all_keys, parse_experiment
from device_sim.report.compare import (
    COHORT_KEYS,
    FINAL_ROUNDS,
    Reached,
    key_differences,
    paired,
    target_accuracy,
    unpaired_keys,
    values_by_key,
)
from device_sim.report.runs import Run
from tests.device_sim.report.made_runs import made_round


def run_of(
    label: str, accuracies: list[float], changes: tuple[str, ...] = (), *, up: int = 100, joules: float = 2.0
) -> Run:
    """A run whose round n ends at 10·(n + 1) simulated seconds and moves ``up`` bytes up and 50 down."""
    rounds = tuple(
        replace(
            made_round(n, 0),
            accuracy=accuracy,
            upload_bytes=up,
            download_bytes=50,
            joules=joules,
            sim_seconds=10.0 * (n + 1),
        )
        for n, accuracy in enumerate(accuracies)
    )
    return Run(label, Path(label), parse_experiment("", changes), rounds, (), None)


def test_pairs_by_hand() -> None:
    first = run_of("first", [0.1, 0.5, 0.6])
    other = run_of("other", [0.2, 0.3, 0.7, 0.9], up=1_000, joules=1.0)
    one, two = paired([first, other])
    assert target_accuracy(first) == pytest.approx(0.4)
    assert (one.accuracy_points, one.accuracy_points_sd, one.bytes_share) == (0, 0, 1)
    assert one.reached == Reached(1, 300, 20.0, 4.0)
    assert two.rounds == 3, "the rounds both have"
    assert two.accuracy_points == pytest.approx(0, abs=1e-9), "+10, −20, +10"
    assert two.accuracy_points_sd == pytest.approx(300**0.5)
    assert two.bytes_share == pytest.approx(1_050 / 150)
    assert two.seconds_share == pytest.approx(1)
    assert two.joules_share == pytest.approx(0.5)
    assert two.reached == Reached(2, 3_150, 30.0, 3.0)


def test_only_the_last_rounds_count_and_a_target_may_stay_out_of_reach() -> None:
    first, worse = run_of("first", [0.0] * 20 + [0.5] * FINAL_ROUNDS), run_of("worse", [0.4] * 30)
    _, line = paired([first, worse])
    assert line.accuracy_points == pytest.approx(-10)
    assert line.reached is None


def test_what_the_first_run_did_not_count_is_not_divided_by() -> None:
    free = run_of("free", [0.5], joules=0.0)
    assert paired([free, run_of("dear", [0.5])])[1].joules_share is None


def test_keys_that_differ_are_named_as_in_the_file_and_only_those() -> None:
    plain = run_of("a", [0.5])
    changed = run_of("b", [0.5], ("upload.codec=none", "train.learning-rate=0.5", "seed=3"))
    found = {d.key: d.values for d in key_differences([plain, changed])}
    defaults = Experiment()
    assert found == {
        "seed": ("0", "3"),
        "train.learning-rate": (str(defaults.train.learning_rate), "0.5"),
        "upload.codec": (f'"{defaults.upload.codec}"', '"none"'),
    }
    assert unpaired_keys(key_differences([plain, changed])) == ["seed"]
    assert key_differences([plain, plain]) == []


def test_values_by_key_has_every_key_of_the_file() -> None:
    values = values_by_key(Experiment())
    assert list(values) == [key for key in all_keys() if key in values]
    missing = {key.partition(".")[0] for key in all_keys() if key not in values}
    assert missing == {"server", "selection", "policy", "attack"}, "parameters of rows that it does not name"
    for prefix in COHORT_KEYS:
        assert any(key.startswith(prefix) for key in all_keys()), prefix
