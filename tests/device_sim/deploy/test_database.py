"""A run whose database is PostgreSQL: the same model, also when it is killed and gone on with."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_sim.deploy.examples import Examples
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.client.participate import Trainer
from fl_mobile.records import Update
from fl_mobile.tensors import weights_hash
from tests.device_sim.broken_fork import in_fork
from tests.device_sim.deploy.fault_sweep import EXPERIMENT, Sweep
from tests.device_sim.deploy.local import play
from tests.device_sim.deploy.loopback import QUICK, on, serve_and_play
from tests.device_sim.deploy.test_deployed import SOME, told
from tests.device_sim.numpy_engine import numpy_engine, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.postgres import Server


def killed_at(fit: int) -> Any:
    """Returns a training whose process dies at its ``fit``-th call."""
    left = iter(range(fit))

    def train(examples: Examples) -> Trainer:
        real = on(numpy_engine())(examples)

        def fitted(*arguments: Any, **more: Any) -> Update:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return fitted

    return train


def test_one_that_is_killed_is_followed_to_the_same_model(tmp_path: Path, postgres: Server) -> None:
    sweep, experiment, url = Sweep(tmp_path), parse_experiment(EXPERIMENT, ()), postgres.empty()
    for fit in (0, 1, 1):

        def dies(fit: int = fit) -> int:
            play(experiment, tmp_path / "here", killed_at(fit), database=url)
            return 0

        ended = in_fork(dies)
        assert ended.code == -signal.SIGKILL, ended.told
    assert in_fork(lambda: len(play(experiment, tmp_path / "here", database=url)) - 2).code == 0
    assert sweep.left(tmp_path / "here") == sweep.expected


@pytest.mark.slow
def test_a_run_on_postgresql_and_http_is_the_simulated_one(tmp_path: Path, postgres: Server) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, SOME))
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, visits = serve_and_play(
        *(federation, deployed, tmp_path / "clients"),
        train=on(federation.engine),
        service=replace(QUICK, database=postgres.empty()),
    )
    assert told(rounds) == told(expected)
    assert visits == {"accepted": 16}
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]
