"""A run that learnt nothing says so, with a reason that is true of it; a run that learnt says nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.run.best import Kept
from device_sim.run.folder import create
from device_sim.run.health import Evidence, evidence_of, trained_nothing, warnings_of
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation, stripes
from tests.device_sim.report.made_runs import made_round
from tests.device_sim.run.test_run import experiment

PLAIN = ("upload.memory=none", "upload.budget-bytes=0", "upload.codec=none", "server.algorithm=fedavg")


def told(path: Path, *changes: str, trainer: NumpyTrainer | None = None) -> list[str]:
    """Plays a run and returns its warnings."""
    federation = numpy_federation(experiment(*changes), numpy_engine(trainer))
    folder = create(path, federation.experiment)
    rounds = list(simulate(federation, folder))
    kept = Kept(rounds[-1].round_num, restore(federation, folder)[0].weights)
    return warnings_of(federation.experiment, rounds, evidence_of(federation, kept))


def test_a_run_that_learns_gets_no_line(tmp_path: Path) -> None:
    assert told(tmp_path / "run") == []
    assert told(tmp_path / "plain", *PLAIN, "server.learning-rate=1") == []


NOBODY: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "every phone offline": (("fleet.dropout-rate=0.9999999",), ["15 devices were asked", "15 offline", "dropout-rate"]),
    "too late": (("clock.deadline-seconds=0.001",), ["15 late", "raise clock.deadline-seconds (0.001)"]),
    "interrupted": (("fleet.interruptions-per-hour=1e15",), ["interrupted", "interruptions-per-hour"]),
    "no memory": (("fleet.ram-share=1e-9",), ["no device could be asked", "ram", "fleet.ram-share"]),
    "kept back": (
        ("policy.name=event", "policy.min-update-norm=1e9", "policy.min-new-examples=0"),
        ["small-update", "policy.min-update-norm (1e+09)"],
    ),
}


@pytest.mark.parametrize(("changes", "words"), NOBODY.values(), ids=NOBODY)
def test_where_no_update_is_accepted_it_is_said_first_with_the_key_to_change(
    tmp_path: Path, changes: tuple[str, ...], words: list[str]
) -> None:
    (line,) = told(tmp_path / "run", "train.rounds=3", "fleet.dropout-rate=0", *changes)
    assert line.startswith("nothing was trained: in 3 rounds")
    for word in words:
        assert word in line


def test_weights_that_hardly_move_are_named_as_the_reason(tmp_path: Path) -> None:
    class Starts(NumpyTrainer):
        """First weights that answer one class and are far from zero."""

        def __init__(self, inputs: int, classes: int) -> None:
            super().__init__(inputs, classes)
            self.initial["out/bias"][1] = 9.0

    (line,) = told(
        tmp_path / "run",
        *(*PLAIN, "server.learning-rate=1", "train.learning-rate=1e-9", "train.rounds=4"),
        trainer=Starts(144, 3),
    )
    assert "only class 1 is ever right" in line
    assert "not above chance: the commonest of 3 classes is" in line
    assert "raise train.learning-rate (1e-09)" in line


def evidence(final: float = 1.0, **changes: Any) -> Evidence:
    labels = stripes().test.y
    weights = {"k": np.ones(4, np.float32)}
    made = Evidence(7, labels, weights, {"k": np.full(4, 2, np.float32)}, lambda: dict.fromkeys(range(3), final))
    return replace(made, **changes)


def rounds_of(accuracy: list[float], loss: list[float], train: list[float]) -> list[Round]:
    rows = zip(accuracy, loss, train, strict=True)
    return [replace(made_round(n, 0), accuracy=a, loss=b, train_loss=c, accepted=9) for n, (a, b, c) in enumerate(rows)]


REASONS: dict[str, tuple[list[float], list[float], str]] = {
    "loss rises": ([1.0] * 7 + [1.5], [1.0] * 8, "held-out loss rose from 1 to 1.5: lower train.learning-rate"),
    "own labels": (
        [1.0] * 7 + [1.5],
        [1.0] * 4 + [0.8] * 4,
        "while the devices' own fell from 1 to 0.8.*labels",
    ),
    "each its own": ([1.0] * 8, [1.0] * 4 + [0.1] * 4, "own loss fell from 1 to 0.1.*fewer train.epochs"),
    "still falling": ([1.1, 1.09, 1.08, 1.07, 1.06, 1.05, 1.04, 1.03], [1.0] * 8, "still falls, from 1.1 to 1.03"),
    "nothing moves": ([1.0] * 8, [1.0] * 8, "No loss moves: raise"),
}


@pytest.mark.parametrize(("loss", "train", "reason"), REASONS.values(), ids=REASONS)
def test_the_reason_follows_from_what_moved(loss: list[float], train: list[float], reason: str) -> None:
    lines = warnings_of(experiment(), rounds_of([1 / 3] * 8, loss, train), evidence(0.3))
    assert len(lines) == 1
    assert re.search(f"not above chance.*{reason}", lines[0])


def test_a_peak_that_was_lost_is_told_with_the_way_back() -> None:
    rounds = rounds_of([0.5, 0.9, 1.0, 0.9, 0.8, 0.7, 0.6, 0.58], [1, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.59], [1.0] * 8)
    (line,) = warnings_of(experiment(), rounds, evidence())
    assert "accuracy was 100.0% after round 3 and is 58.0% at the end" in line
    assert "--resume --set output.keep=best" in line
    (line,) = warnings_of(experiment("output.keep=best"), rounds, replace(evidence(), round_num=2))
    assert "the best round's model is kept" in line


def test_a_loss_that_rises_for_long_is_told_with_who_fits_what() -> None:
    loss, train = [1, 0.5, 0.52, 0.55, 0.6, 0.65, 0.7, 0.8], [1, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    (line,) = warnings_of(experiment(), rounds_of([0.9] * 8, loss, train), evidence())
    assert "held-out loss rose from 0.5 after round 2 to 0.8, while the devices' own fell from 0.6 to 0.05" in line
    (line,) = warnings_of(experiment(), rounds_of([0.9] * 8, loss, train[::-1]), evidence())
    assert "the devices' own did not fall: lower train.learning-rate" in line


def test_tensors_that_are_not_finite_or_variances_below_zero_are_named() -> None:
    rounds = rounds_of([0.9] * 8, [1.0] * 8, [1.0] * 8)
    broken = {"bn/moving_variance": np.array([-0.2], np.float32), "bn/moving_mean": np.array([np.nan], np.float32)}
    lines = warnings_of(experiment(), rounds, evidence(first=broken, kept=broken))
    assert "'bn/moving_mean'" in lines[0]
    assert "below 0, e.g. 'bn/moving_variance'" in lines[1]


def test_chance_is_not_judged_where_examples_have_no_single_class() -> None:
    assert warnings_of(experiment(), rounds_of([0.0] * 8, [1.0] * 8, [1.0] * 8), evidence(labels=None)) == []
    assert not trained_nothing(rounds_of([0.0], [1.0], [1.0]))
