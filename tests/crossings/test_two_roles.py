"""Whoever drives the two roles, the same packets give the same model: forty lines without a simulator, and ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device_sim.engines import Task
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.records import FitPlan, Update
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.two_roles import federate

CLIENTS, ROUNDS = 7, 6
EVERYBODY = ("train.cohort=7", f"train.rounds={ROUNDS}", "fleet.dropout-rate=0", "fleet.link=ideal")
DEFAULT = ("upload.codec=ecsq", "download.mode=delta")
WAYS = {
    "whole models": (),
    "the default": DEFAULT,
    "error feedback": (*DEFAULT, "upload.codec=flat+topk:0.05+q8", "upload.memory=error-feedback"),
    "cafe and rate control": (*DEFAULT, "upload.memory=cafe", "upload.target-ratio=6"),
    "scaffold, clipped": (*DEFAULT, "server.algorithm=scaffold", "server.clip-norm=0.4", "upload.codec=q8"),
    "feddyn": (*DEFAULT, "server.algorithm=feddyn", "upload.codec=q8"),
    "fednova": (*DEFAULT, "server.algorithm=fednova"),
    "fedadam": (*DEFAULT, "server.algorithm=fedadam", "server.learning-rate=0.05"),
    "pruned": (*DEFAULT, "train.pruning.sparsity=0.5", "train.pruning.end-round=3", "train.pruning.smallest-kernel=1"),
    "sketch, forwarded": ("upload.codec=sketch:k=64,bits=2", "download.mode=forward", "server.schedule=linear-tail"),
    "sketch, clipped": (*DEFAULT, "upload.codec=sketch:k=64", "server.clip-norm=0.4"),
    "a broadcast mean": (*DEFAULT, "server.averaging=exponential", "server.averaging-broadcast=true"),
    "the mean of three": (*DEFAULT, "server.averaging=last", "server.averaging-rounds=3", "server.schedule=cosine"),
    "median": (*DEFAULT, "server.aggregation=median"),
    "trimmed mean": (*DEFAULT, "server.aggregation=trimmed-mean"),
}


@pytest.mark.parametrize("way", WAYS)
def test_both_roles_by_hand_reach_the_simulators_model_to_the_bit(tmp_path: Path, way: str) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, (*EVERYBODY, *WAYS[way])))
    folder = create(tmp_path / "run", federation.experiment)
    assert [r.accepted for r in simulate(federation, folder)] == [CLIENTS] * ROUNDS

    def fit(weights: Tensors, client: int, seed: int, pull: Tensors | None, plan: FitPlan) -> Update:
        task = Task(client, *federation.data.examples(client), seed, pull=pull)
        return next(iter(federation.engine.train(weights, [task], plan, lambda _, updates: updates[0])))

    state = federate(
        federation.agreement,
        federation.rules,
        lambda t: federation.experiment.train.plan(t, from_logits=True),
        fit,
        Shelf(tmp_path / "points"),
        clients=CLIENTS,
        rounds=ROUNDS,
    )
    assert weights_hash(state.weights) == weights_hash(restore(federation, folder)[0].weights)


def test_the_driver_by_hand_needs_no_simulator() -> None:
    code = "import sys, tests.fl_mobile.two_roles; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fl_mobile" in done.stdout
    assert not {"device_sim", "export", "tensorflow", "keras"} & set(eval(done.stdout))
