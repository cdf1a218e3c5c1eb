"""SWEEP.toml: what it may say, and every mistake told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import read_experiment
from device_sim.sweep.files import read_sweep, write_best
from device_sim.sweep.plan import SAMPLERS, Range, SweepPlan, Trial
from device_sim.sweep.results import TrialResult
from device_sim.sweep.search import grid, open_search
from fl_mobile.errors import ConfigError

SEARCH = '[search]\n"train.epochs" = [1, 2]\n'


def plan_of(tmp_path: Path, text: str, **more: object) -> SweepPlan:
    (tmp_path / "sweep.toml").write_text(text)
    return read_sweep(tmp_path / "sweep.toml", **more)  # type: ignore[arg-type]


def test_everything_a_file_may_say(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nrounds = 7\ncohort = 3\n")
    text = """
base = "mine.toml"
seeds = 2
sampler = "pareto"
trials = 9
sampler-seed = 4
objectives = ["loss", "upload-bytes"]
[experiment.train]
rounds = 5
[experiment.output]
recipes = ["int8"]
[search]
"train.learning-rate" = { low = 0.01, high = 1, log = true }
"train.epochs" = { low = 1, high = 9, step = 2 }
"upload.codec" = ["ecsq", "q8+deflate"]
"""
    plan = plan_of(tmp_path, text, changes=["train.rounds=4"])
    assert (plan.base.train.rounds, plan.base.train.cohort, plan.base.output.recipes) == (4, 3, ("int8",))
    assert (plan.seeds, plan.sampler, plan.trials, plan.sampler_seed) == (2, "pareto", 9, 4)
    assert plan.objectives == ("loss", "upload-bytes")
    assert plan.space == {
        "train.learning-rate": Range(0.01, 1, log=True),
        "train.epochs": Range(1, 9, step=2),
        "upload.codec": ("ecsq", "q8+deflate"),
    }
    assert plan_of(tmp_path, text, seeds=5).seeds == 5
    bare = text.replace('"train.epochs"', "train.epochs").replace('"upload.codec"', "upload.codec")
    assert plan_of(tmp_path, bare, changes=["train.rounds=4"]) == plan
    assert plan_of(tmp_path, SEARCH).base == Experiment()


def test_a_key_that_fits_only_with_another_searched_one_is_no_mistake(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[search]\n"train.cohort" = [10, 200]\n"data.devices" = [100, 400]\n')
    with pytest.raises(ConfigError, match=r"cohort \(200\)"):
        plan.experiments(Trial("", {"train.cohort": 200, "data.devices": 100}))
    assert plan.experiments(Trial("", {"train.cohort": 200, "data.devices": 400}))[2].seed == 2


MISTAKES = {
    "not TOML": ("[search", ["not valid TOML"]),
    "unknown key": ("trails = 3\n" + SEARCH, ["'trails'", "Did you mean 'trials'?"]),
    "unknown base": ('base = "nope.toml"\n' + SEARCH, ["nope.toml", "no such experiment file"]),
    "unknown sampler": ('sampler = "gird"\n' + SEARCH, ["'gird'", "Did you mean 'grid'?"]),
    "unknown objective": ('objectives = ["acuracy"]\n' + SEARCH, ["'acuracy'", "Did you mean 'accuracy'?"]),
    "the same objective twice": ('objectives = ["loss", "loss"]\n' + SEARCH, ["different names"]),
    "no objective": ("objectives = []\n" + SEARCH, ["one or more"]),
    "objectives of no string": ("objectives = [1]\n" + SEARCH, ["list of strings"]),
    "pareto of one": ('sampler = "pareto"\nobjectives = ["loss"]\n' + SEARCH, ["two objectives", "tpe"]),
    "wrong type": ('seeds = "3"\n' + SEARCH, ["seeds", "whole number", "'3'"]),
    "no seed": ("seeds = 0\n" + SEARCH, ["at least 1"]),
    "trials of a grid": ('sampler = "grid"\ntrials = 4\n' + SEARCH, ["every combination"]),
    "nothing to search": ("seeds = 1\n", ["[search]", "nothing to search"]),
    "unknown key in the base": ("[experiment.train]\nround = 1\n" + SEARCH, ["train.round", "'train.rounds'"]),
    "wrong value in the base": ("[experiment.train]\nrounds = 0\n" + SEARCH, ["train.rounds", "above 0"]),
    "unknown key to search": ('[search]\n"train.epoch" = [1]\n', ["train.epoch", "Did you mean 'train.epochs'?"]),
    "unknown section to search": ("[search]\ntrian.epochs = [1]\n", ["trian.epochs", "Did you mean 'train.epochs'?"]),
    "an empty range": ('[search]\n"train.epochs" = {}\n', ["low and high"]),
    "seeds are paired": ('[search]\n"seed" = [1, 2]\n', ["same seeds", "set seeds"]),
    "no choice": ('[search]\n"train.epochs" = []\n', ["at least one"]),
    "the same choice twice": ('[search]\n"train.epochs" = [1, 1]\n', ["different choices"]),
    "neither list nor range": ('[search]\n"train.epochs" = 3\n', ["list of choices", "low", "3"]),
    "a choice of the wrong type": ('[search]\n"train.epochs" = [1, "two"]\n', ["whole number", "'two'"]),
    "a codec that is none": ('[search]\n"upload.codec" = ["ecsq", "q8+deflat"]\n', ["deflat", "'deflate'"]),
    "half a range": ('[search]\n"train.epochs" = { low = 1 }\n', ["low and high"]),
    "unknown word in a range": ('[search]\n"train.epochs" = { low = 1, hi = 2 }\n', ["'hi'", "'high'"]),
    "range upside down": ('[search]\n"train.epochs" = { low = 5, high = 2 }\n', ["train.epochs", "below high"]),
    "log of zero": ('[search]\n"train.decay" = { low = 0.0, high = 1.0, log = true }\n', ["log", "above 0"]),
    "range of words": ('[search]\n"upload.codec" = { low = 1, high = 2 }\n', ["upload.codec", "string"]),
    "fractions of a whole number": ('[search]\n"train.epochs" = { low = 0.5, high = 2.5 }\n', ["whole number", "0.5"]),
    "range beyond what is allowed": ('[search]\n"fleet.dropout-rate" = { low = 0, high = 1 }\n', ["[0, 1)"]),
    "a grid without end": (
        'sampler = "grid"\n[search]\n"train.decay" = { low = 0.1, high = 1.0 }\n',
        ["train.decay", "range with a step"],
    ),
    "step beyond the range": ('[search]\n"train.epochs" = { low = 1, high = 3, step = 5 }\n', ["step", "5"]),
    "a choice that is not finite": (
        '[search]\n"train.learning-rate" = [0.5, nan]\n',
        ["train.learning-rate", "finite", "nan"],
    ),
    "a range without end": ('[search]\n"train.decay" = { low = 0.1, high = inf }\n', ["train.decay", "high", "finite"]),
    "a range from nowhere": ('[search]\n"train.decay" = { low = nan, high = 1.0 }\n', ["train.decay", "low", "finite"]),
    "a step of nan": ('[search]\n"train.decay" = { low = 0.1, high = 1.0, step = nan }\n', ["step", "finite"]),
    "a base that is not finite": (
        "[experiment.train]\nmomentum = -inf\n" + SEARCH,
        ["train.momentum", "finite", "-inf"],
    ),
    "a date": ('[search]\n"train.epochs" = [2020-01-01]\n', ["list of choices"]),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_the_file(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as told:
        plan_of(tmp_path, text)
    for word in ("sweep.toml" if "nope" not in text else "nope.toml", *words):
        assert word in str(told.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such sweep file"):
        read_sweep(tmp_path / "nope.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_sweep(tmp_path / "bytes.toml")


def test_a_grid_is_every_combination_but_the_base(tmp_path: Path) -> None:
    text = 'sampler = "grid"\n[search]\n"upload.codec" = ["ecsq", "none"]\n"train.epochs" = { low = 4, high = 6 }\n'
    trials = list(grid(plan_of(tmp_path, text)))
    combinations = [(c, e) for c in ("ecsq", "none") for e in (4, 5, 6)]
    combinations.remove(("ecsq", 5))  # the defaults
    assert [tuple(trial.params.values()) for trial in trials] == combinations
    search = open_search(plan_of(tmp_path, text))
    assert search.count == 6
    assert search.known == (Trial("base", {}), *trials)
    assert [search.ask() for _ in range(6)] == list(search.known)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_suggestions_lie_in_the_space(tmp_path: Path, sampler: str) -> None:
    text = f"""
sampler = "{sampler}"
trials = 8
[search]
"train.learning-rate" = {{ low = 0.01, high = 1, log = true }}
"train.epochs" = {{ low = 1, high = 9, step = 4 }}
"train.clip-gradient-norm" = {{ low = 0.5, high = 0.7, step = 0.1 }}
"upload.codec" = ["ecsq", "q8+deflate"]
"""
    plan = plan_of(tmp_path, text)
    search = open_search(plan)
    assert search.ask() == Trial("base", {})
    for _ in range(8):
        params = search.ask().params
        search.tell(None)  # all fail: the search must go on
        assert 0.01 <= float(params["train.learning-rate"]) <= 1
        assert params["train.epochs"] in (1, 5, 9)
        assert any(params["train.clip-gradient-norm"] == pytest.approx(m) for m in (0.5, 0.6, 0.7))
        assert params["upload.codec"] in ("ecsq", "q8+deflate")
        assert plan.experiments(Trial("t", params))[0].train.epochs == params["train.epochs"]


def test_best_is_an_experiment_to_simulate(tmp_path: Path) -> None:
    base = plan_of(tmp_path, "[experiment]\nseed = 3\n" + SEARCH).base
    write_best(tmp_path / "best.toml", base, TrialResult(1, "epochs=2", {"train.epochs": 2}, "", "", None))
    stored = read_experiment(tmp_path / "best.toml")
    assert (stored.seed, stored.train.epochs, stored.output) == (3, 2, base.output)
