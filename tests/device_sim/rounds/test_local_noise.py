"""Runs in which devices add the noise: what is counted, what is kept, what is said, on an engine without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_sim.deploy.opening import deployable
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.rounds.memory import FleetMemory
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate, stop_reason
from device_sim.run.privacy import FORECAST, privacy_of, privacy_told
from fl_mobile.errors import ConfigError
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import global_norm, weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

LOCAL = (
    *("data.devices=30", "train.cohort=10", "train.rounds=6", "selection.sampler=uniform", "output.recipes=[]"),
    *("privacy.mode=local", "privacy.noise-multiplier=4", "privacy.clip-norm=0.5"),
)
REPEATED = (*LOCAL, "privacy.reproducible=true")


def played(path: Path, *changes: str) -> tuple[Federation, RunFolder, list[Round]]:
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    folder = create(path, federation.experiment)
    return federation, folder, list(simulate(federation, folder))


def final(federation: Federation, folder: RunFolder) -> str:
    return weights_hash(restore(federation, folder)[0].weights)


def test_the_device_that_answered_most_often_is_what_the_ledger_says(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", *REPEATED)
    memory = FleetMemory(Shelf(folder.memory))
    state, _ = restore(federation, folder, memory)
    most = memory.answers.largest
    assert memory.answers.get(np.arange(30)).sum() == sum(r.uploads for r in rounds)
    assert 1 < most < 6
    assert federation.ledger is not None
    assert rounds[-1].privacy["answers"] == most
    assert rounds[-1].privacy["epsilon"] == federation.ledger.after(most).epsilon
    assert state.privacy is None, "the server holds no key of its devices"
    told = privacy_told(privacy_of(federation, rounds))
    assert "any others" in told
    assert FORECAST in told
    assert all(r.train_loss is None for r in rounds)


def test_the_noise_is_as_large_as_is_said(tmp_path: Path) -> None:
    federation, _, rounds = played(tmp_path / "run", *REPEATED, "upload.codec=none", "train.rounds=1")
    size = sum(t.size for t in federation.spec.values())
    before = global_norm(federation.initial)
    expected = 4 * 0.5 * (size / rounds[0].accepted) ** 0.5
    assert rounds[0].weights_norm == pytest.approx(expected, rel=0.2)
    assert expected > 3 * before


def test_a_run_that_was_killed_goes_on_with_the_same_secrets(tmp_path: Path) -> None:
    federation, whole, _ = played(tmp_path / "whole", *LOCAL)
    again = numpy_federation(parse_experiment(PLAIN, LOCAL))
    folder = create(tmp_path / "cut", again.experiment)
    rounds = simulate(again, folder)
    next(rounds)
    rounds.close()
    secret = json.loads(np.load(folder.checkpoint)["meta"].tobytes())["extra"]["secret"]
    assert folder.checkpoint.stat().st_mode & 0o077 == 0, "others can read the devices' secret"
    list(simulate(again, folder))
    memory = FleetMemory(Shelf(folder.memory))
    restore(again, folder, memory)
    assert memory.secret.hex() == secret
    assert final(again, folder) != final(federation, whole), "two runs drew from one secret"
    (one, two) = (played(tmp_path / str(n), *REPEATED) for n in range(2))
    assert final(*one[:2]) == final(*two[:2])


def test_a_run_stops_before_a_device_would_spend_more(tmp_path: Path) -> None:
    federation, _, rounds = played(tmp_path / "run", *REPEATED, "privacy.max-epsilon=2")
    assert federation.local_noise is not None
    assert federation.ledger is not None
    answers = federation.local_noise.answers
    assert federation.ledger.after(answers).epsilon <= 2 < federation.ledger.after(answers + 1).epsilon
    assert rounds[-1].privacy["answers"] == answers
    assert "privacy.max-epsilon" in stop_reason(federation.experiment, rounds)
    with pytest.raises(ConfigError, match="one answer alone spends"):
        played(tmp_path / "none", *REPEATED, "privacy.max-epsilon=0.01")


def test_any_codec_may_follow_and_any_rule_and_cohort(tmp_path: Path) -> None:
    for n, more in enumerate(
        (
            ("upload.codec=flat+topk:0.1+sign",),
            ("upload.codec=sketch:k=64",),
            ("server.aggregation=median",),
            ("train.cohort=1",),
        )
    ):
        _, _, rounds = played(tmp_path / str(n), *REPEATED, "train.rounds=2", *more)
        assert rounds[-1].privacy["epsilon"] > 0


def test_real_clients_may_add_noise_but_not_from_a_seed() -> None:
    experiment = parse_experiment(PLAIN, LOCAL)
    experiment = replace(experiment, train=replace(experiment.train, batch_size=8))
    assert deployable(experiment).privacy.local
    with pytest.raises(ConfigError, match="anybody can repeat"):
        deployable(replace(experiment, privacy=replace(experiment.privacy, reproducible=True)))
