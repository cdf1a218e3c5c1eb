"""Sweeps that run: paired seeds, failures kept with their reason, and resumed after any kill to the same files."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.log import read_rounds
from device_sim.sweep.arms import arm_trials
from device_sim.sweep.files import read_log
from device_sim.sweep.picture import plot
from device_sim.sweep.plan import Range, SweepPlan
from device_sim.sweep.results import TrialResult
from device_sim.sweep.run import forecast, run_sweep
from device_sim.sweep.search import listed, open_search
from fl_mobile.errors import DivergedError, RunError
from tests.device_sim.cli_runs import environment
from tests.device_sim.sweep_until_killed import plan_in, sweep_in

KILLS = 8
OPTUNA = ("random", "tpe", "pareto")


def run(out: Path, plan: SweepPlan, told: list[str] | None = None) -> list[TrialResult]:
    return run_sweep(sweep_in(out, plan, told), open_search(plan))


def test_arms_pair_cohorts_and_resume(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "tpe")
    base = replace(plan.base, fleet=replace(plan.base.fleet, dropout_rate=0.3))
    trials = arm_trials(base, ["none", "q4+deflate"], 2)
    told: list[str] = []

    def killed_in_the_third(title: str, rounds, limit: int) -> None:  # type: ignore[no-untyped-def]
        told.append(title)
        if len(told) == 3:
            next(rounds)
            raise KeyboardInterrupt
        assert len(list(rounds)) == limit

    sweep = replace(sweep_in(tmp_path, plan), base=base, watch=killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, listed(trials))
    none, q4 = run_sweep(sweep, listed(trials))
    assert [title for title in told if told.count(title) > 1] == ["trial 1/1, seed 0: q4+deflate"] * 2
    for seed in (0, 1):
        folders = [reopen(tmp_path / r.folder / f"seed-{seed}") for r in (none, q4)]
        assert [experiment.seed for _, experiment in folders] == [seed, seed]
        dropped = [[r.dropped for r in read_rounds(folder)] for folder, _ in folders]
        assert dropped[0] == dropped[1], "same seed, same cohort, same drop-outs"
    assert none.scores is not None
    assert none.scores.difference == 0
    kinds = [{row["kind"]: row["packet_bytes"] for row in result.by_kind} for result in (none, q4)]
    assert kinds[0]
    assert kinds[0].keys() == kinds[1].keys()
    assert sum(kinds[1].values()) < sum(kinds[0].values()), "measured on the first seed's own updates"
    assert [row["codec"] for row in (none.by_kind[0], q4.by_kind[0])] == ["none", "q4+deflate"]


@pytest.mark.parametrize("sampler", OPTUNA)
def test_a_search_ends_and_started_again_runs_nothing(tmp_path: Path, sampler: str) -> None:
    plan, told = plan_in(tmp_path, sampler), list[str]()
    results = run(tmp_path, plan, told)
    assert [r.number for r in results] == list(range(13))
    assert results[0].params == {}
    failed = [r for r in results if r.failure]
    assert all(r.failure.startswith("train.cohort (") for r in failed)
    assert failed == [r for r in results[1:] if int(r.params["train.cohort"]) > int(r.params["data.devices"])]
    assert failed, "cohorts of 7 and 8 of 6 devices were drawn"
    # one with the same values as an earlier one shares its runs
    assert len(told) == 2 * len({r.folder for r in results if not r.failure})

    told.clear()
    assert run(tmp_path, plan, told) == results
    assert told == []
    assert read_log(tmp_path)[3]["params"] == dict(results[3].params)


@pytest.mark.parametrize("sampler", OPTUNA)
def test_more_trials_go_on_where_fewer_ended(tmp_path: Path, sampler: str) -> None:
    plan = plan_in(tmp_path / "short", sampler)
    first = run(tmp_path / "short", replace(plan, trials=5))
    told: list[str] = []
    longer = run(tmp_path / "short", plan, told)
    assert longer[:6] == first
    assert not any(re.match(r"trial [0-5]/", title) for title in told)
    assert longer == run(tmp_path / "whole", plan)


def test_tpe_learns_where_the_good_learning_rates_are(tmp_path: Path) -> None:
    plan = replace(plan_in(tmp_path, "tpe"), trials=30, objectives=("loss",), seeds=1)
    plan = replace(plan, space={"train.learning-rate": Range(1e-4, 1.0, log=True)})
    rates = [float(r.params["train.learning-rate"]) for r in run(tmp_path, plan)[1:]]
    near = sum(0.05 <= rate <= 0.5 for rate in rates[10:])
    assert near > 10, "a quarter of the range, around the best 0.18: chance gives 5 of 20"


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_diverges_is_kept_as_failed_and_not_run_again(tmp_path: Path) -> None:
    plan, told = plan_in(tmp_path, "random"), list[str]()
    base = replace(plan.base, download=replace(plan.base.download, mode="delta"))
    plan = replace(plan, base=base, sampler="grid", space={"server.learning-rate": (0.9, 1e12, 0.5)})
    _, good, bad, other = run(tmp_path, plan, told)
    assert "Lower the learning rates" in bad.failure
    assert (bad.scores, good.failure, other.failure) == (None, "", "")
    told.clear()
    assert run(tmp_path, plan, told)[2] == bad
    assert told == []
    diverging = parse_experiment(to_toml(base), ["server.learning-rate=1e12"])
    with pytest.raises(DivergedError):  # without trial 0 there is nothing to compare with
        run(tmp_path / "other", replace(plan, base=diverging))


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "random")
    run(tmp_path, replace(plan, trials=3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"trial 1 was .* start again with another --out"):
        run(tmp_path, replace(plan, trials=3, sampler_seed=1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "trials.jsonl").write_text('{"number": 0')
    with pytest.raises(RunError, match=r"trials.jsonl: damaged"):
        run(tmp_path, plan)


def test_forecast_counts_what_is_left(tmp_path: Path) -> None:
    space = {"train.cohort": (2, 4, 7), "data.devices": (6, 8)}
    plan = replace(plan_in(tmp_path, "random"), sampler="grid", space=space)
    sweep = sweep_in(tmp_path, plan)
    cost = forecast(sweep, open_search(plan))
    assert (cost["trials"], cost["runs"], cost["runs_left"]) == (7, 14, 12), "7 of 6 devices cannot run"
    assert (cost["rounds_per_run"], cost["fits_per_run"], cost["seconds_per_run"]) == (3, 9, None)
    failing = [t["label"] for t in cost["known_trials"] if t["failure"]]
    assert failing == ["train.cohort=7;data.devices=6"]
    run(tmp_path, plan)
    cost = forecast(sweep, open_search(plan))
    assert cost["runs_left"] == 0
    assert cost["seconds_per_run"] > 0
    searched = replace(plan_in(tmp_path / "tpe", "tpe"), trials=4)
    run(tmp_path / "tpe", replace(searched, trials=2))
    cost = forecast(sweep_in(tmp_path / "tpe", searched), open_search(searched))
    assert (len(cost["known_trials"]), cost["runs_left"]) == (3, 4)


def test_the_plot_is_drawn_with_failures_left_out(tmp_path: Path) -> None:
    results = run(tmp_path, plan_in(tmp_path, "random"))
    plot(results, tmp_path / "pareto.svg")
    plot(results[:1], tmp_path / "one.png", "upload-bytes")
    svg = (tmp_path / "pareto.svg").read_text()
    assert svg.startswith("<?xml")
    assert "Pareto front" in svg
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def results_in(out: Path) -> dict[str, object]:
    """What must not depend on kills: all but the clocks."""
    files = {name: (out / name).read_bytes() for name in ("trials.jsonl", "sweep.json", "best.toml")}
    runs = {path.parent for path in out.rglob("rounds.jsonl")}
    clockless = {p: [replace(r, wall_seconds=0.0) for r in read_rounds(RunFolder(p))] for p in runs}
    return {**files, **{str(path.relative_to(out)): rounds for path, rounds in clockless.items()}}


def bytes_of_rounds(out: Path) -> int:
    return sum(path.stat().st_size for path in out.rglob("rounds.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", OPTUNA)
def test_killed_at_any_moment_it_ends_at_the_same_files(tmp_path: Path, sampler: str) -> None:
    module = "tests.device_sim.sweep_until_killed"

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", module, str(tmp_path / name), sampler]

    quiet = {"env": environment(), "stdout": subprocess.DEVNULL}
    subprocess.run(command("whole"), check=True, **quiet)  # type: ignore[call-overload]
    moments = random.Random(sampler)
    for _ in range(KILLS):
        before = bytes_of_rounds(tmp_path / "killed")
        child = subprocess.Popen(command("killed"), **quiet)  # type: ignore[call-overload]
        while child.poll() is None and bytes_of_rounds(tmp_path / "killed") <= before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it had ended by itself"
    subprocess.run(command("killed"), check=True, **quiet)  # type: ignore[call-overload]
    assert results_in(tmp_path / "killed") == results_in(tmp_path / "whole")


def test_killed_between_a_run_and_its_line(tmp_path: Path) -> None:
    """The narrowest moment: the runs are whole, the line in trials.jsonl is not written."""
    plan = replace(plan_in(tmp_path, "tpe"), trials=4)
    results = run(tmp_path, plan)
    log = tmp_path / "trials.jsonl"
    whole, told = log.read_bytes(), list[str]()
    for kept in range(5):
        log.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]))
        assert run(tmp_path, plan, told) == results
        assert log.read_bytes() == whole
    assert told == [], "runs that are whole were run again"
