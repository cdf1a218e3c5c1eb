"""A private federation over HTTP: the simulator's model and ledger where the key is the same, and a key of its own."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from device_sim.deploy.serve import Serving, served
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from fl_mobile.tensors import weights_hash
from tests.device_sim.deploy.loopback import QUICK, on, serve_and_play
from tests.device_sim.deploy.test_deployed import told
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

pytest.importorskip("dp_accounting")
PRIVATE = (
    *("data.devices=12", "train.cohort=3", "train.rounds=4", "selection.sampler=poisson", "privacy.mode=central"),
    *("privacy.noise-multiplier=1", "privacy.clip-norm=0.5", "privacy.delta=0.01", "output.recipes=[]"),
)


def opened(*changes: str) -> Federation:
    return numpy_federation(parse_experiment(PLAIN, (*PRIVATE, *changes)))


def hashed(federation: Federation, folder: RunFolder) -> str:
    return weights_hash(restore(federation, folder)[0].weights)


def deployed(federation: Federation, folder: Path) -> tuple[list[Round], RunFolder]:
    run = create(folder / "run", federation.experiment)
    rounds, _ = serve_and_play(federation, run, folder / "clients", train=on(federation.engine))
    return rounds, run


ADAPTIVE = pytest.param(("privacy.clip-quantile=0.5",), marks=pytest.mark.slow)


@pytest.mark.parametrize("more", [(), ADAPTIVE], ids=["fixed norm", "adaptive norm"])
def test_with_the_simulators_key_it_is_the_simulation_to_the_bit(tmp_path: Path, more: tuple[str, ...]) -> None:
    federation = opened("privacy.reproducible=true", *more)
    simulated = create(tmp_path / "simulated", federation.experiment)
    expected = list(simulate(federation, simulated))
    rounds, run = deployed(federation, tmp_path)
    assert told(rounds) == told(expected)
    assert [r.privacy for r in rounds] == [r.privacy for r in expected]
    assert rounds[-1].privacy["epsilon"] > rounds[0].privacy["epsilon"] > 0
    assert hashed(federation, run) == hashed(federation, simulated)


@pytest.mark.slow
def test_the_key_is_the_operating_systems_and_no_two_runs_draw_or_disturb_alike(tmp_path: Path) -> None:
    federation = opened()
    runs = [deployed(federation, tmp_path / name) for name in ("one", "other")]
    assert hashed(federation, runs[0][1]) != hashed(federation, runs[1][1])
    spent = [[r.privacy for r in rounds] for rounds, _ in runs]
    assert spent[0] == spent[1]
    keys = [restore(federation, run)[0].privacy for _, run in runs]
    assert keys[0] is not None
    assert keys[1] is not None
    assert keys[0].key != keys[1].key
    for _, run in runs:
        assert run.checkpoint.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_round_in_which_nobody_comes_ends_at_its_deadline_and_is_charged(tmp_path: Path) -> None:
    federation = opened("clock.deadline-seconds=0.05", "train.rounds=2")
    run = create(tmp_path / "run", federation.experiment)
    before = hashed(federation, run)
    with served(federation, run, {}, replace(QUICK, least=3)) as serving:
        rounds = list(serving.rounds)
        page, metrics = (asked(serving, path) for path in ("/", "/metrics"))
    assert [r.accepted for r in rounds] == [0, 0]
    assert rounds[1].privacy["epsilon"] > rounds[0].privacy["epsilon"] > 0
    assert hashed(federation, run) != before
    assert "cohort" not in page
    assert "accepted" not in page + metrics


@pytest.mark.slow
def test_nobody_drawn_is_a_round_of_noise_alone(tmp_path: Path) -> None:
    """Poisson sampling of 2 in 12 draws nobody every ninth round; such a round does not wait."""
    federation = opened("privacy.reproducible=true", "train.cohort=2", "train.rounds=14")
    expected = list(simulate(federation, create(tmp_path / "simulated", federation.experiment)))
    assert 0 in [r.cohort for r in expected]
    rounds, _ = deployed(federation, tmp_path)
    assert told(rounds) == told(expected)


def asked(serving: Serving, path: str) -> str:
    with urllib.request.urlopen(serving.url + path, timeout=10) as answer:
        return str(answer.read().decode())
