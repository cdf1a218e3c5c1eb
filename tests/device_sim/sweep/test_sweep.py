"""Sweeps in numbers: arms, the arithmetic of the table, the Pareto front, the trial to take."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.experiment.toml import parse_experiment
from device_sim.run.best import Kept
from device_sim.run.folder import create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from device_sim.run.summary import summarise
from device_sim.sweep.arms import arm_trial, arm_trials
from device_sim.sweep.files import folder_name
from device_sim.sweep.plan import Trial, experiments_of
from device_sim.sweep.results import OBJECTIVES, Scores, TrialResult, best, front_of, score
from fl_mobile.errors import ConfigError
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.device_sim.run.test_progress import played


def fake_round(number: int, accuracy: float, up: int, down: int = 0, loss: float = 1.0) -> Round:
    """A round of two uploads of a model of 1,000 float32 bytes."""
    size = {"upload_bytes": up, "download_bytes": down, "uploads": 2, "downloads": 2, "ratio": 2000 / up}
    return replace(played(1)[0], round_num=number, accuracy=accuracy, loss=loss, **size)


def ended(number: int, accuracy: float, total_bytes: float, sd: float = 0.0, failure: str = "") -> TrialResult:
    scores = score([[fake_round(0, accuracy, 1000)]], [[fake_round(0, accuracy, 1000)]])
    scores = replace(scores, accuracy_sd=sd, total_bytes=total_bytes)
    return TrialResult(number, f"t{number}", {}, f"f{number}", failure, None if failure else scores)


def test_arms_are_codecs_with_more_keys() -> None:
    base = parse_experiment("")
    none, cafe = arm_trials(base, ["none", "ecsq:step=4;upload.memory=cafe;upload.target-ratio=105"], 2)
    assert experiments_of(base, none, [0])[0].upload.codec == "none"
    both = experiments_of(base, cafe, [0, 5])
    uploads = [(e.upload.codec, e.upload.memory, e.upload.target_ratio) for e in both]
    assert uploads == [("ecsq:step=4", "cafe", 105)] * 2
    assert [e.seed for e in both] == [0, 5]
    assert [e.output.keep_updates for e in both] == [2, 0]


@pytest.mark.parametrize("arm", ["", ";a=1", "none;cafe", "none; =1"])
def test_broken_arms(arm: str) -> None:
    with pytest.raises(ConfigError, match="expected CODEC"):
        arm_trial(arm)


def test_double_and_missing_arms_and_unknown_keys() -> None:
    base = parse_experiment("")
    with pytest.raises(ConfigError, match="same experiment"):
        arm_trials(base, ["none", "none; upload.memory=none"], 1)
    with pytest.raises(ConfigError, match="at least one"):
        arm_trials(base, [], 1)
    with pytest.raises(ConfigError, match=r"unknown key.*Did you mean 'upload.memory'"):
        arm_trials(base, ["none;upload.memroy=none"], 1)


def test_table_by_hand() -> None:
    a = [[fake_round(0, 0.5, 2000, 100), fake_round(1, 0.9, 2000, 100)]]
    a += [[fake_round(0, 0.6, 2000, 100), fake_round(1, 0.8, 2000, 100, loss=3.0)]]
    b = [[fake_round(0, 0.6, 20, 100), fake_round(1, 0.76, 20, 100)]]
    b += [[fake_round(0, 0.5, 20, 100), fake_round(1, 0.7, 20, 140)]]
    of_a, of_b = score(a, a), score(b, a)
    assert (of_a.accuracy, of_b.accuracy) == pytest.approx((0.7, 0.64))
    assert (of_a.loss, of_b.loss) == pytest.approx((1.5, 1))
    assert (of_a.difference, of_a.difference_sd) == (0, 0)
    assert (of_b.difference, of_b.difference_sd) == pytest.approx((-6, 32**0.5)), "−2 and −10"
    assert (of_a.upload_ratio, of_b.upload_ratio) == pytest.approx((1, 100))
    assert of_b.upload_bytes == 10
    assert of_b.download_ratio == pytest.approx(8 * 1000 / 440)
    assert (of_b.total_bytes, of_b.total_bytes_sd) == pytest.approx((260, 800**0.5)), "240 and 280"
    assert of_a.rounds_to_target == (1, 1)
    assert (of_b.rounds_to_target, of_b.bytes_to_target) == ((1, 1), (240, 280))
    assert score(b, a, target_accuracy=0.75).bytes_to_target == (240, None)
    assert score(b[:1], a[:1]).accuracy_sd == 0


def test_folder_names_are_safe_and_unique() -> None:
    names = [
        folder_name(Trial(label, {})) for label in ("ecsq;upload.memory=cafe", "ecsq;upload.memory+cafe", "x" * 200)
    ]
    names += [folder_name(Trial("learning-rate=0.0123", {"train.learning-rate": r})) for r in (0.01231, 0.01232)]
    assert len(set(names)) == 5
    assert all(len(name) < 80 and "/" not in name and ";" not in name for name in names)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=12))
def test_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    results = [ended(i, accuracy / 10, size) for i, (accuracy, size) in enumerate(points)]
    front = {r.number for r in front_of(results, ["accuracy", "total-bytes"])}
    for i, (accuracy, size) in enumerate(points):
        beaten = any(a >= accuracy and s <= size and (a, s) != (accuracy, size) for a, s in points)
        assert (i in front) != beaten


@pytest.mark.parametrize(("one", "two"), list(itertools.permutations(OBJECTIVES, 2)))
def test_the_better_one_in_everything_is_the_front_and_the_best(one: str, two: str) -> None:
    worse = [[fake_round(0, 0.5, 4000, 100, loss=2.0)]]
    better = [[fake_round(0, 0.6, 2000, 50, loss=1.0)]]
    results = [TrialResult(i, "", {}, "", "", score(runs, worse)) for i, runs in enumerate((worse, better))]
    assert [r.number for r in front_of(results, [one, two])] == [1]
    chosen = best(results, [one, two], seeds=1)
    assert chosen is not None
    assert chosen.number == 1


def test_best_is_the_cheapest_within_one_standard_error() -> None:
    results = [ended(0, 0.80, 50), ended(1, 0.90, 100, sd=0.06), ended(2, 0.88, 30), ended(3, 0.86, 10)]
    results.append(ended(4, 0.99, 1, failure="diverged"))

    def chosen(objectives: list[str], seeds: int) -> int:
        one = best(results, objectives, seeds)
        assert one is not None
        return one.number

    assert chosen(["accuracy", "total-bytes"], seeds=4) == 2, "0.90 − 0.06/2 admits 0.88, not 0.86"
    assert chosen(["accuracy", "total-bytes"], seeds=1) == 3
    assert chosen(["accuracy"], seeds=4) == 1
    assert chosen(["total-bytes", "accuracy"], seeds=4) == 3
    assert best(results[-1:], ["accuracy"], seeds=4) is None


def test_scores_need_no_upload() -> None:
    nobody = [[replace(played(1)[0], uploads=0, upload_bytes=0, ratio=None)]]
    assert isinstance(score(nobody, nobody), Scores)


def test_a_sweep_and_the_summary_of_its_run_tell_the_same_ratios(tmp_path: Path) -> None:
    """Devices download and decline to send: downloads are more than uploads, and each ratio divides by its own."""
    changes = ["policy.name=event", "policy.min-new-examples=0", "policy.min-update-norm=0.5", "output.recipes=[]"]
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    folder = create(tmp_path / "run", federation.experiment)
    rounds = list(simulate(federation, folder))
    state = restore(federation, folder)[0]
    told = summarise(federation, rounds, Kept(rounds[-1].round_num, state.weights), None, command="")["traffic"]
    scores = score([rounds], [rounds])
    assert told["downloads"] > told["uploads"] > 0
    assert scores.download_ratio == pytest.approx(told["download_ratio"])
    assert scores.upload_ratio == pytest.approx(told["upload_ratio"])
    assert scores.total_bytes == told["upload_bytes"] + told["download_bytes"]
