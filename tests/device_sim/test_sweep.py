"""Sweeps: arms, pairing, resuming, and the arithmetic of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_sim.experiment_file import parse_experiment
from device_sim.run_folder import read_rounds, reopen
from device_sim.simulate import Round
from device_sim.sweep import arm_changes, experiments_of, folder_name, pareto_front, results, run_sweep
from fl_mobile.errors import ConfigError


def fake_round(number: int, accuracy: float, up: int, down: int = 0, uploads: int = 2) -> Round:
    """A round of a model of 1,000 float32 bytes."""
    ratio = 1000 * uploads / up
    return Round(number, accuracy, 1.0, 1.0, uploads, uploads, {}, up, down, uploads, ratio, 0.0, 0.0)


def test_arms_are_codecs_with_more_keys() -> None:
    experiments = experiments_of(parse_experiment(""), ["none", "ecsq:step=4;upload.memory=cafe"], [0, 5])
    assert len(experiments) == 4
    cafe = experiments["ecsq:step=4;upload.memory=cafe", 5]
    assert (cafe.upload.codec, cafe.upload.memory, cafe.seed) == ("ecsq:step=4", "cafe", 5)


@pytest.mark.parametrize("arm", ["", ";a=1", "none;cafe", "none; =1"])
def test_broken_arms(arm: str) -> None:
    with pytest.raises(ConfigError, match="expected CODEC"):
        arm_changes(arm)


def test_double_and_missing_arms_and_unknown_keys() -> None:
    base = parse_experiment("")
    with pytest.raises(ConfigError, match="same experiment"):
        experiments_of(base, ["none", "none; upload.memory=none"], [0])
    with pytest.raises(ConfigError, match="at least one"):
        experiments_of(base, [], [0])
    with pytest.raises(ConfigError, match="unknown key"):
        experiments_of(base, ["none;upload.memroy=none"], [0])


def test_table_by_hand() -> None:
    runs = {
        ("a", 0): [fake_round(0, 0.5, 2000, 100), fake_round(1, 0.9, 2000, 100)],
        ("a", 1): [fake_round(0, 0.6, 2000, 100), fake_round(1, 0.8, 2000, 100)],
        ("b", 0): [fake_round(0, 0.6, 20, 100), fake_round(1, 0.76, 20, 100)],
        ("b", 1): [fake_round(0, 0.5, 20, 100), fake_round(1, 0.7, 20, 100)],
    }
    a, b = results(runs)
    assert (a.accuracy, b.accuracy) == pytest.approx((0.7, 0.64))
    assert (a.difference, a.difference_sd) == (0, 0)
    assert (b.difference, b.difference_sd) == pytest.approx((-6, 32**0.5)), "−2 and −10"
    assert (a.upload_ratio, b.upload_ratio) == pytest.approx((1, 100))
    assert b.download_ratio == pytest.approx(20)
    assert b.total_bytes == 240
    assert a.rounds_to_target == (1, 1)
    assert b.rounds_to_target == (1, 1)
    assert b.bytes_to_target == (240, 240)
    assert results(runs, target_accuracy=0.78)[1].bytes_to_target == (None, None)
    assert [line.arm for line in pareto_front([a, b])] == ["b", "a"]


def test_folder_names_are_safe_and_unique() -> None:
    arms = ["ecsq:step=1;upload.memory=cafe", "ecsq:step=1;upload.memory+cafe", "x" * 200]
    names = [folder_name(arm) for arm in arms]
    assert len(set(names)) == 3
    assert all(len(name) < 80 and "/" not in name and ";" not in name for name in names)


@pytest.mark.tf
def test_a_sweep_pairs_cohorts_and_resumes(tmp_path: Path) -> None:
    keys = ["data.dataset=synthetic", "data.devices=6", "train.cohort=3", "train.rounds=3", "train.epochs=1"]
    base = parse_experiment("", [*keys, "model.name=logistic", "fleet.dropout-rate=0.3"])
    planned = experiments_of(base, ["none", "q4+deflate"], [0, 1])
    started: list[str] = []

    def watch(title, rounds, limit):  # type: ignore[no-untyped-def]
        started.append(title)
        if len(started) == 3:
            next(rounds)  # as if killed after one round
            raise KeyboardInterrupt
        assert len(list(rounds)) == limit

    with pytest.raises(KeyboardInterrupt):
        run_sweep(planned, tmp_path, watch)
    runs = run_sweep(planned, tmp_path, watch)
    assert [title for title in started if started.count(title) > 1] == ["q4+deflate, seed 0"] * 2
    for seed in (0, 1):
        none, q4 = (runs[arm, seed] for arm in ("none", "q4+deflate"))
        assert [r.dropped for r in none] == [r.dropped for r in q4], "same seed, same cohort, same drop-outs"
    folder, stored = reopen(tmp_path / folder_name("none") / "seed-1")
    assert stored.seed == 1
    assert len(read_rounds(folder)) == 3
