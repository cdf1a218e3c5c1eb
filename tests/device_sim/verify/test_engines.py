"""Comparing engines: equal ones pass, rounding passes, and whatever a wrong engine may do is caught."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_sim.cli.output import Format
from device_sim.cli.verify_engines import show
from device_sim.engines import Evaluation, Task
from device_sim.experiment.data import Data
from device_sim.experiment.experiment import Experiment, Fleet, Train
from device_sim.verify.engines import Comparison, compare, moved
from fl_mobile.errors import VerifyError
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors
from tests.device_sim.cli_runs import SMALL, fl_mobile
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation

SMALL_RUN = Experiment(
    data=Data(devices=6, alpha=1.0),
    train=Train(rounds=2, cohort=3, epochs=2, batch_size=5),
    fleet=Fleet(link="ideal", dropout_rate=0.0),
)
NAMES = ("one", "two")


class Damaged(NumpyTrainer):
    """Changes every update by a factor per tensor."""

    def __init__(self, factors: dict[str, float]) -> None:
        super().__init__(144, 3)
        self.factors = factors

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        return [
            replace(update, delta={p: v * np.float32(self.factors.get(p, 1.0)) for p, v in update.delta.items()})
            for update in super().train(weights, tasks, plan)
        ]


class OtherOrder(NumpyTrainer):
    """Shuffles by another seed."""

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        return super().train(weights, [replace(task, seed=task.seed + 1) for task in tasks], plan)


class Corner(NumpyTrainer):
    """Has a jump at one exact set of weights, as ReLU has at zero."""

    def __init__(self, wide: float) -> None:
        super().__init__(144, 3)
        self.wide, self.at = wide, np.float32(0)

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        probe = float(np.abs(weights["out/kernel"]).sum())
        self.at = self.at or np.float32(probe)
        jump = np.float32(1.1 if probe and abs(probe - self.at) <= self.wide * self.at else 1.0)
        return [
            replace(update, delta={p: v * jump for p, v in update.delta.items()})
            for update in super().train(weights, tasks, plan)
        ]


class WrongScore(NumpyTrainer):
    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        return [replace(found, accuracy=0.1, tally={}) for found in super().score(weights, tasks, plan)]


def against(second: NumpyTrainer) -> Comparison:
    return compare(numpy_federation(SMALL_RUN), numpy_engine(second), NAMES)


def test_the_same_engine_is_the_same() -> None:
    found = against(NumpyTrainer(144, 3))
    assert found.problems() == []
    assert [(u.round_num, u.max_abs, u.relative) for u in found.updates] == [(r, 0.0, 0.0) for r in (0, 0, 0, 1, 1, 1)]
    assert found.accuracy[0] == found.accuracy[1] > 0.3
    assert found.corners == 0


def test_rounding_is_the_same() -> None:
    found = against(Damaged({"out/kernel": 1 + 2e-5}))
    assert found.problems() == []
    assert all(0 < u.relative < u.allowed for u in found.updates)


def test_a_corner_is_told_apart_from_a_defect() -> None:
    """A jump at the very weights is rounding's; one that is still there a little aside is a defect."""
    corner, defect = against(Corner(1e-9)), against(Corner(1e-2))
    assert (corner.corners, corner.problems()) == (3, [])
    assert all(u.aside is not None and u.aside < u.allowed < u.relative for u in corner.updates if u.round_num)
    assert "3 of 6 updates differ" in defect.problems()[0]


@pytest.mark.parametrize("second", [Damaged({"out/bias": 1.05}), Damaged({"out/kernel": 1.001}), OtherOrder(144, 3)])
def test_an_update_that_differs_is_caught_with_device_and_round(second: NumpyTrainer) -> None:
    (problem,) = against(second).problems()
    assert f"of {len(against(second).updates)} updates differ" in problem
    assert "device" in problem
    assert "in round" in problem


def test_an_evaluation_that_differs_is_caught() -> None:
    (problem,) = against(WrongScore(144, 3)).problems()
    assert "final accuracy" in problem
    assert "10.00% on two" in problem


def test_updates_that_are_not_numbers_are_caught() -> None:
    found = against(NumpyTrainer(144, 3))
    broken = replace(found, updates=(replace(found.updates[0], relative=float("nan")),), accuracy=(0.5, float("nan")))
    assert len(broken.problems()) == 2


def test_what_is_shown_and_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    same = against(NumpyTrainer(144, 3))
    show(same, Format.TEXT)
    assert "one and two: the same federation" in capsys.readouterr().out
    wrong = against(Damaged({"out/kernel": 1.01}))
    with pytest.raises(VerifyError, match="updates differ"):
        show(wrong, Format.JSON)
    printed = json.loads(capsys.readouterr().out)
    assert printed["verified"] is False
    assert len(printed["updates"]) == 6
    assert printed["problems"]


def test_moved_weights_are_as_far_away_as_asked() -> None:
    weights = {"w": np.array([[1.0, -3.5], [0.0, 1e-30]], np.float32)}
    one, two = moved(weights, 0, 2.0**-20)["w"], moved(weights, 1, 2.0**-20)["w"]
    assert one.dtype == np.float32
    assert not np.array_equal(one, two)
    np.testing.assert_allclose(one, weights["w"], rtol=2.0**-20 * 1.01)
    assert (one != weights["w"]).sum() == 3


@pytest.mark.tf
def test_the_command_trains_on_keras_and_on_the_phones_program() -> None:
    dense: Any = (*SMALL, "--set", "model.name=mlp", "--set", "train.rounds=2", "--set", "train.learning-rate=0.1")
    ended = fl_mobile("verify", "--engines", *dense, "--format", "json")
    assert ended.code == 0, ended.err
    assert ended.json["engines"] == ["keras", "litert"]
    assert ended.json["verified"]
    assert 0 < ended.json["updates"][0]["relative"] < 1e-4
    refused = fl_mobile("verify", "--set", "train.rounds=2")
    assert refused.code == 2
    assert "--engines" in refused.err
