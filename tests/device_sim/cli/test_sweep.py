"""`fl-mobile sweep` as a command: by file and by codecs, dry, resumed, interrupted, and with mistakes."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from device_sim.cli import make_app
from device_sim.cli.sweep import sweep
from device_sim.experiment.toml import parse_experiment, read_experiment, to_toml
from device_sim.sweep.files import read_sweep
from tests.device_sim.cli_runs import command, environment, fl_mobile, interruptible, the_message

GRID = """
sampler = "grid"
seeds = 2
[experiment]
data = { dataset = "digits", devices = 12 }
model = { name = "logistic" }
train = { rounds = 2, cohort = 4, epochs = 1 }
[search]
train.cohort = [4, 20]
upload.codec = ["q8+deflate", "ecsq"]
data.devices = [12, 24]
"""


def test_the_file_in_the_help_can_be_read(tmp_path: Path) -> None:
    told = inspect.cleandoc(sweep.__doc__ or "").partition("A SWEEP.toml")[2].partition("\n\n")[0].replace("\\", "")
    (tmp_path / "experiment.toml").write_text(to_toml(parse_experiment("")))
    (tmp_path / "search.toml").write_text(told.partition("\n")[2])
    plan = read_sweep(tmp_path / "search.toml")
    assert (plan.sampler, plan.trials, plan.base.train.rounds, len(plan.space)) == ("tpe", 40, 20, 3)
    shown = CliRunner().invoke(make_app(), ["sweep", "--help"]).output
    for line in told.splitlines()[1:]:
        assert line.strip().partition("  ")[0] in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nope.toml"], 3, ["nope.toml", "no such sweep file"]),
        (["search.toml", "ecsq"], 3, ["search.toml stands alone"]),
        (["search.toml", "--set", "train.round=1"], 3, ["train.round", "Did you mean 'train.rounds'?"]),
        (["ecsq", "q8+deflat"], 3, ["deflat", "Did you mean 'deflate'?"]),
        (["ecsq", "ecsq"], 3, ["same experiment"]),
        (["ecsq", "none;train.cohort=1000"], 3, ["cohort (1000)"]),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (tmp_path / "search.toml").write_text(GRID)
    ended = fl_mobile("sweep", *arguments, cwd=tmp_path)
    message = the_message(ended)
    assert (ended.code, ended.out) == (code, "")
    for word in words:
        assert word in message
    assert [path.name for path in tmp_path.iterdir()] == ["search.toml"]


def test_a_dry_run_lists_the_grid_with_what_will_fail_and_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text(GRID)
    ended = fl_mobile("sweep", "search.toml", "--dry-run", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "trial 0: base"
    assert "train.cohort=4;upload.codec=q8+deflate;data.devices=12" in lines[1]
    assert [line.partition("(will fail: ")[2][:17] for line in lines if "fail" in line] == ["train.cohort (20)"] * 2
    assert "8 trials × 2 seeds = 16 runs, 12 still to do" in ended.out
    assert "2 rounds and 8 local trainings" in ended.out
    told = fl_mobile("sweep", "search.toml", "--dry-run", "--seeds", "1", "--format", "json", cwd=tmp_path).json
    assert (told["runs"], told["runs_left"], told["seconds_per_run"]) == (8, 6, None)
    assert [path.name for path in tmp_path.iterdir()] == ["search.toml"]


@pytest.mark.tf
def test_a_grid_from_file_to_best_experiment(tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text(GRID)
    # Cold: what TensorFlow logs of itself depends on what is set before it is imported.
    ended = fl_mobile("sweep", "search.toml", "--seeds", "1", "--format", "json", cwd=tmp_path, cold=True)
    assert ended.code == 0, ended.err
    content, out = ended.json, tmp_path / "runs" / "search"
    assert json.loads((out / "sweep.json").read_text()) == content
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        *("best.toml", "pareto.svg", "sweep.json", "trials.jsonl")
    ]
    trials = content["trials"]
    assert [trial["number"] for trial in trials if trial["failure"]] == [4, 6]
    assert (content["seeds"], content["sampler"], content["objectives"]) == (1, "grid", ["accuracy", "total-bytes"])
    best = trials[content["best"]]
    assert content["best"] in content["pareto_front"]
    stored = read_experiment(out / "best.toml")
    base = {"train.cohort": 4, "upload.codec": "ecsq", "data.devices": 12}
    params = (stored.train.cohort, stored.upload.codec, stored.data.devices)
    assert params == tuple({**base, **best["params"]}.values())
    assert "Traceback" not in ended.err
    assert "retracing" not in ended.err

    again = fl_mobile("sweep", "search.toml", "--seeds", "1", cwd=tmp_path)
    assert (again.code, again.err) == (0, ""), "finished: nothing is loaded, nothing runs"
    assert "failed: trial 4, " in again.out
    for word in ("trial", "cohort", "codec", "devices", "accuracy %", "in all", "best", "pareto.svg", "(base)"):
        assert word in again.out


@pytest.mark.slow
@pytest.mark.tf
def test_codecs_interrupted_and_started_again(tmp_path: Path) -> None:
    keys = ("data.dataset=digits", "model.name=logistic", "train.rounds=3", "train.epochs=1")
    arguments = ("sweep", "none", "ecsq", "--seeds", "2", *(part for key in keys for part in ("--set", key)))
    child = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment(),
        preexec_fn=interruptible,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    told = ""
    for line in child.stderr:
        told += line
        if line.startswith("trial 0/1, seed 1"):
            child.send_signal(signal.SIGINT)
            break
    told += child.stderr.read()
    assert child.wait() == 130
    assert told.endswith("fl-mobile: stopped; what is finished is in runs/sweep, and the same command goes on\n")
    ended = fl_mobile(*arguments, "--plot", "pareto.png", "--format", "json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "seed 0: none" not in ended.err
    assert [trial["label"] for trial in ended.json["trials"]] == ["none", "ecsq"]
    assert ended.json["trials"][1]["scores"]["upload_ratio"] > 5
    assert (tmp_path / "pareto.png").exists()
