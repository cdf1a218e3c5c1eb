"""Twenty reference clients on the phone's program, over loopback, and `simulate --engine litert`: the same packets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_sim.deploy.fleet import on_litert
from device_sim.deploy.opening import deployable, open_deployed
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.tensors import weights_hash
from tests.device_sim.deploy.loopback import serve_and_play
from tests.device_sim.deploy.test_deployed import told

pytestmark = pytest.mark.tf

EXPERIMENT = """
[data]
dataset = "digits"
devices = 20
[model]
name = "logistic"
[train]
rounds = 3
cohort = 12
epochs = 1
[upload]
memory = "error-feedback"
[fleet]
link = "ideal"
dropout-rate = 0.0
[output]
keep-updates = 0
"""


def recorded(monkeypatch: pytest.MonkeyPatch, where: str, name: str) -> list[str]:
    """Returns a list that fills with the SHA-256 of each packet that clients make there, by that function."""
    import importlib

    module, out = importlib.import_module(where), list[str]()
    real: Callable[..., Any] = getattr(module, name)

    def answers(*args: Any, **more: Any) -> Any:
        made = real(*args, **more)
        out.extend(hashlib.sha256(one.packet).hexdigest() for one in (made if isinstance(made, list) else [made]))
        return made

    monkeypatch.setattr(module, name, answers)
    return out


def test_a_simulation_is_the_deployment_packet_by_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated_packets = recorded(monkeypatch, "device_sim.rounds.clients", "answer_each")
    packets = recorded(monkeypatch, "fl_mobile.client.participate", "answer")
    federation, programs = open_deployed(deployable(parse_experiment(EXPERIMENT, ())))
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, visits = serve_and_play(federation, deployed, tmp_path / "clients", train=on_litert(), programs=programs)
    federation.engine.close()
    assert visits == {"accepted": 36}
    assert len(packets) == 36
    assert sorted(packets) == sorted(simulated_packets)
    assert told(rounds) == told(expected)
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]
