"""A finished run goes on: to the bytes of a run that was to be as long from the start, or it says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_sim.experiment.toml import read_experiment
from device_sim.run.folder import RunFolder, create, locked, reopen
from device_sim.run.going_on import TIED_TO_ROUNDS, check_goes_on, rewrite
from device_sim.run.log import Round, read_rounds
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import RunError
from fl_mobile.records import SCHEDULES
from fl_mobile.server.schedule import SCHEDULES as SERVER_SCHEDULES
from fl_mobile.tensors import weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.run.test_run import experiment, play


def go_on(path: Path, *changes: str) -> tuple[list[Round], str]:
    """Plays the run in ``path`` as its own experiment with ``changes``; returns its rounds and weights' hash."""
    folder, stored = reopen(path)
    wanted = read_experiment(folder.experiment, changes)
    check_goes_on(path, stored, wanted, read_rounds(folder))
    rewrite(folder, wanted)
    federation = numpy_federation(wanted)
    rounds = list(simulate(federation, folder))
    return rounds, weights_hash(restore(federation, folder)[0].weights)


def clockless(rounds: list[Round]) -> list[Round]:
    return [replace(done, wall_seconds=0.0) for done in rounds]


CELLS = {
    "default": (),
    "residuals": ("upload.memory=error-feedback",),
    "cafe": ("upload.memory=cafe",),
    "scaffold": ("server.algorithm=scaffold", "server.learning-rate=1", "upload.memory=none"),
    "full downloads": ("download.mode=full",),
    "decay": ("train.schedule=exponential",),
    "inverse root": ("train.schedule=inverse-sqrt",),
    "pruning": ("train.pruning.sparsity=0.5", "train.pruning.end-round=3", "train.pruning.smallest-kernel=1"),
    "pruning meanwhile": ("train.pruning.sparsity=0.5", "train.pruning.end-round=4", "train.pruning.smallest-kernel=1"),
    "asynchronous": (
        "clock.mode=asynchronous",
        *("server.algorithm=fedavg", "server.learning-rate=1", "upload.memory=none", "upload.budget-bytes=0"),
    ),
    "oort": ("selection.sampler=oort",),
    "kept updates and timelines": ("output.keep-updates=6", "output.timeline-rounds=3"),
    "devices' own accuracy": ("evaluation.device-test-fraction=0.3", "evaluation.every=2"),
}


@pytest.mark.parametrize("changes", CELLS.values(), ids=CELLS)
def test_more_rounds_give_the_bytes_of_a_run_that_was_to_have_them_from_the_start(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    whole, expected = play(tmp_path / "whole", *changes, "train.rounds=9")
    play(tmp_path / "run", *changes, "train.rounds=5")
    go_on(tmp_path / "run", "train.rounds=7")
    rounds, found = go_on(tmp_path / "run", "train.rounds=9")
    assert found == expected
    assert clockless(rounds) == clockless(whole)
    assert read_experiment(RunFolder(tmp_path / "run").experiment).train.rounds == 9


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_that_looks_at_the_number_of_rounds_is_named_in_the_table(schedule: str) -> None:
    def rates(rounds: int) -> list[float]:
        train = replace(experiment(f"train.schedule={schedule}").train, rounds=rounds)
        return [train.plan(t, from_logits=True).learning_rate for t in range(5)]

    assert (rates(5) != rates(50)) == (schedule in TIED_TO_ROUNDS["train.schedule"])


def test_what_is_spread_over_the_rounds_cannot_get_more_of_them(tmp_path: Path) -> None:
    play(tmp_path / "run", "train.schedule=cosine", "train.rounds=2")
    before = RunFolder(tmp_path / "run").experiment.read_bytes()
    with pytest.raises(RunError, match=r"train.schedule 'cosine' is spread over train.rounds = 2.*model.weights"):
        go_on(tmp_path / "run", "train.rounds=3")
    assert RunFolder(tmp_path / "run").experiment.read_bytes() == before


@pytest.mark.parametrize("schedule", SERVER_SCHEDULES)
def test_a_server_schedule_over_the_rounds_cannot_get_more_of_them(tmp_path: Path, schedule: str) -> None:
    play(tmp_path / "run", f"server.schedule={schedule}", "train.rounds=2")
    if schedule == "constant":
        go_on(tmp_path / "run", "train.rounds=3")
        return
    with pytest.raises(RunError, match=rf"server.schedule '{schedule}' is spread over train.rounds = 2.*model.weights"):
        go_on(tmp_path / "run", "train.rounds=3")


def test_other_keys_are_refused_by_name_and_value(tmp_path: Path) -> None:
    play(tmp_path / "run", "train.rounds=2")
    with pytest.raises(RunError, match=r"another experiment.*data.alpha = 7.0 \(there 0.3\), seed = 3 \(there 0\)"):
        go_on(tmp_path / "run", "train.rounds=3", "seed=3", "data.alpha=7")
    with pytest.raises(RunError, match="2 rounds are played already"):
        go_on(tmp_path / "run", "train.rounds=1")
    with pytest.raises(RunError, match=r"engine\.name = 'litert'"):
        go_on(tmp_path / "run", "engine.name=litert")


def test_engine_workers_and_output_are_free(tmp_path: Path) -> None:
    play(tmp_path / "run", "train.rounds=2")
    _, stored = reopen(tmp_path / "run")
    free = ("engine.workers=1", "engine.name=ray", "output.timeline-rounds=1")
    wanted = read_experiment(RunFolder(tmp_path / "run").experiment, free)
    assert not check_goes_on(tmp_path / "run", stored, wanted, [])


def test_a_run_that_stopped_early_says_what_keeps_it_and_goes_on_when_that_is_changed(tmp_path: Path) -> None:
    whole, expected = play(tmp_path / "whole", "stop.target-accuracy=0", "train.rounds=8")
    played, _ = play(tmp_path / "run", "stop.target-accuracy=0.5", "train.rounds=8")
    assert len(played) < 8
    with pytest.raises(RunError, match=r"reached target accuracy 0\.5.*--set stop.target-accuracy=0"):
        go_on(tmp_path / "run", "train.rounds=12")
    rounds, found = go_on(tmp_path / "run", "stop.target-accuracy=0")
    assert (clockless(rounds), found) == (clockless(whole), expected)


def test_an_unfinished_run_can_end_where_it_stands(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", experiment())
    federation = numpy_federation(experiment())
    for done in simulate(federation, folder):
        if done.round_num == 3:
            break
    rounds, found = go_on(folder.path, "train.rounds=4")
    assert (clockless(rounds), found) == (lambda r, h: (clockless(r), h))(*play(tmp_path / "w", "train.rounds=4"))


def _results_of(folder: RunFolder) -> None:
    folder.summary.write_text("{}")
    folder.bundle.mkdir()
    (folder.bundle / "float32.tflite").write_bytes(b"x")


def test_results_of_the_earlier_end_are_gone_before_the_run_goes_on_and_stay_where_only_output_changes(
    tmp_path: Path,
) -> None:
    folder = create(tmp_path / "run", experiment("train.rounds=2"))
    _results_of(folder)
    rewrite(folder, read_experiment(folder.experiment, ["output.timeline-rounds=1"]))
    assert folder.summary.exists()
    assert folder.bundle.exists()
    rewrite(folder, read_experiment(folder.experiment, ["train.rounds=3"]))
    assert not folder.summary.exists()
    assert not folder.bundle.exists()
    assert not list(folder.path.glob(".*"))


def test_the_lock_is_on_the_file_that_is_there(tmp_path: Path) -> None:
    """`rewrite` puts a new file in the place of the locked one; a lock on the old one would keep nobody out."""
    folder = create(tmp_path / "run", experiment("train.rounds=2"))
    rewrite(folder, experiment("train.rounds=3"))
    with locked(folder), pytest.raises(RunError, match="another process"):
        rewrite(folder, experiment("train.rounds=4"))
