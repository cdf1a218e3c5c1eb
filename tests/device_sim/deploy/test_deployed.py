"""A simulated run is the deployed one: the same packets, the same model and the same rounds, over real sockets."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_sim.deploy.examples import Examples
from device_sim.deploy.serve import coordinator_folder
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from fl_mobile.client.kept import load
from fl_mobile.client.participate import Trainer
from fl_mobile.records import Update
from fl_mobile.tensors import weights_hash
from tests.crossings.test_two_roles import DEFAULT, WAYS
from tests.device_sim.deploy.fault_sweep import EXPERIMENT
from tests.device_sim.deploy.local import play
from tests.device_sim.deploy.loopback import QUICK, SECONDS, on, serve_and_play
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

SOME = ("train.cohort=4", "train.rounds=4", "fleet.dropout-rate=0", "fleet.link=ideal")
TRAVELS = ("round_num", "accuracy", "loss", "train_loss", "cohort", "accepted", "upload_bytes", "uploads", "downloads")


def told(rounds: list[Round]) -> list[dict[str, object]]:
    return [{name: getattr(each, name) for name in TRAVELS} for each in rounds]


@pytest.mark.sample("the default|error feedback|scaffold, clipped|sketch, forwarded|the mean of three|whole models")
@pytest.mark.parametrize("way", WAYS)
def test_clients_over_http_reach_the_simulators_model_to_the_bit(tmp_path: Path, way: str) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, (*SOME, *WAYS[way])))
    simulated = create(tmp_path / "simulated", federation.experiment)
    expected = list(simulate(federation, simulated))
    deployed = create(tmp_path / "deployed", federation.experiment)
    rounds, visits = serve_and_play(federation, deployed, tmp_path / "clients", train=on(federation.engine))
    assert told(rounds) == told(expected)
    assert [r.download_bytes for r in rounds] == [r.download_bytes for r in expected]
    assert visits == {"accepted": 16}
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]


def test_clients_add_noise_of_their_own_and_count_what_they_answer(tmp_path: Path) -> None:
    noisy = ("upload.codec=none", "privacy.mode=local", "privacy.noise-multiplier=4", "privacy.clip-norm=0.5")
    federation = numpy_federation(parse_experiment(PLAIN, (*SOME, *noisy)))
    deployed, clients = create(tmp_path / "deployed", federation.experiment), tmp_path / "clients"
    rounds, visits = serve_and_play(federation, deployed, clients, train=on(federation.engine))
    assert visits == {"accepted": 16}
    size = sum(t.size for t in federation.spec.values())
    assert rounds[0].weights_norm == pytest.approx(4 * 0.5 * (size / 4) ** 0.5, rel=0.2)
    assert sum(load(path.parent).answers for path in clients.rglob("client.npz")) == 16
    assert rounds[-1].privacy["answers"] == 4


@pytest.mark.parametrize(("mode", "kept"), [("synchronous", 2), ("asynchronous", 3)])
def test_models_of_rounds_that_nobody_is_in_are_not_kept(tmp_path: Path, mode: str, kept: int) -> None:
    late = ["clock.mode=asynchronous", "clock.max-staleness=1"] if mode == "asynchronous" else []
    keys = ("train.rounds=7", "upload.memory=none", *late)
    played = play(parse_experiment(EXPERIMENT, keys), tmp_path)
    assert played == [2 if mode == "synchronous" else 1] * 7
    left = [path.stat().st_size for path in (coordinator_folder(RunFolder(tmp_path / "run")) / "blobs").iterdir()]
    assert 3 <= len(left) <= 2 + 2 * kept, "terms, the app's model, and for every round a delta or the whole model"


def test_a_run_that_is_stopped_goes_on_to_the_same_model(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, (*SOME, *DEFAULT, "upload.memory=error-feedback")))
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    train = on(federation.engine)
    first, _ = serve_and_play(federation, deployed, tmp_path / "clients", train=train, rounds=2)
    assert len(first) == 2
    rounds, _ = serve_and_play(federation, deployed, tmp_path / "clients", train=train)
    assert told(rounds) == told(expected)
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("error", [RuntimeError("planted"), KeyboardInterrupt("planted")])
def test_clients_that_die_end_the_server_that_waits_for_them(tmp_path: Path, error: BaseException) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, SOME))
    folder, trained = create(tmp_path / "run", federation.experiment), iter([True] * 5)

    def train(examples: Examples) -> Trainer:
        real = on(federation.engine)(examples)

        def fit(*arguments: Any, **more: Any) -> Update:
            if not next(trained, False):
                raise error
            return real(*arguments, **more)

        return fit

    began = time.monotonic()
    with pytest.raises(type(error), match="planted"):
        serve_and_play(federation, folder, tmp_path / "clients", train=train)
    assert time.monotonic() - began < SECONDS / 2


def test_an_asynchronous_run_takes_late_packets(tmp_path: Path) -> None:
    keys = ("clock.mode=asynchronous", "clock.buffer=2", "train.cohort=4", "train.rounds=5", *DEFAULT)
    federation = numpy_federation(parse_experiment(PLAIN, keys))
    folder = create(tmp_path / "run", federation.experiment)
    rounds, _ = serve_and_play(
        federation, folder, tmp_path / "clients", train=on(federation.engine), service=replace(QUICK, drawn=False)
    )
    assert [r.accepted for r in rounds] == [2] * 5
