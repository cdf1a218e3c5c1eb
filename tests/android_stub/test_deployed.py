"""JVM clients on the phone's program against `serve`, and `simulate --engine litert`: the same packets, bit by bit."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.deploy.examples import deal
from device_sim.deploy.opening import deployable, open_deployed
from device_sim.deploy.serve import served
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.tensors import weights_hash
from tests.crossings.test_deployed import recorded
from tests.device_sim.deploy.loopback import QUICK
from tests.device_sim.deploy.test_deployed import told

ROOT = Path(__file__).parents[2]
JAR = ROOT / "android_stub" / "host" / "target" / "fl-client.jar"

pytestmark = [
    pytest.mark.tf,
    pytest.mark.skipif(not shutil.which("java"), reason="needs a JDK: apt-get install openjdk-17-jdk-headless maven"),
    pytest.mark.skipif(not JAR.exists(), reason="needs android_stub/host/target/fl-client.jar: make android"),
]

EXPERIMENT = """
[data]
dataset = "digits"
devices = 12
[model]
name = "logistic"
[train]
rounds = 4
cohort = 8
epochs = 2
[upload]
memory = "error-feedback"
[fleet]
link = "ideal"
dropout-rate = 0.0
[output]
keep-updates = 0
"""

NO_MEMORY = "upload.memory=none"
MORE = {
    "plain": (),
    "rate and distortion": ("upload.codec=ecsq:step=2,rounding=rdo,rank=0",),
    "top-k, whole models": (NO_MEMORY, "upload.codec=flat+topk:0.05+q8:nearest", "download.mode=full"),
    "two layers without low rank": (NO_MEMORY, "model.name=mlp", "upload.codec=ecsq:rank=0"),
    "sketch": (NO_MEMORY, "upload.codec=sketch:k=256"),
    "scaffold": (NO_MEMORY, "server.algorithm=scaffold"),
    "feddyn": (NO_MEMORY, "server.algorithm=feddyn"),
    "prediction": ("upload.memory=cafe",),
    "private head": ("model.name=mlp", "upload.codec=ecsq:rank=0", "personal.private=head", "output.recipes=[]"),
    "momentum and clipping": (
        "train.optimizer=momentum",
        "train.clip-gradient-norm=1.0",
        "server.algorithm=fednova",
        NO_MEMORY,
    ),
}


EXACT = (NO_MEMORY, "upload.codec=none", "download.mode=full", "download.codec=none")

Command = Callable[[str, Path], list[str]]
"""The coordinator's URL and the folder of the clients' examples → what plays them all."""


def library() -> str:
    """Returns the runtime of the Python wheel."""
    import ai_edge_litert

    return str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so")


def fleet(url: str, data: Path) -> list[str]:
    """Returns the command line that app teams try."""
    count = len(list(data.glob("*.npz")))
    command = ["java", "-Xmx256m", "-jar", str(JAR), "--litert", library()]
    return [*command, "--server", url, "--data", str(data), "--fleet", str(count)]


def on_tflite(url: str, data: Path) -> list[str]:
    """Returns the same fleet on the runtime that goes into apps."""
    command = fleet(url, data)
    at = command.index("--litert")
    return command[:at] + command[at + 2 :]


def killed(url: str, data: Path) -> list[str]:
    """Returns a fleet of which three clients die at every step, one after the other."""
    path = f"{JAR}:{JAR.parent / 'test-classes'}"
    return ["java", "-Xmx256m", "-cp", path, "flmobile.host.KilledMain", url, str(data), library()]


def played(
    federation: Any, folder: Any, programs: dict[str, bytes], where: Path, command: Command
) -> tuple[list[Any], str]:
    """Returns the rounds of a federation that JVM clients took part in, and what they printed."""
    said: dict[str, subprocess.CompletedProcess[str]] = {}
    deal(federation.dataset, federation.data, where / "data")
    with served(federation, folder, programs, QUICK, stopped=lambda: bool(said)) as serving:

        def play() -> None:
            limited = ["timeout", "-k", "10", "300", *command(serving.url, where / "data")]
            said["done"] = subprocess.run(limited, capture_output=True, text=True, check=False)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        rounds = []
        try:
            rounds.extend(serving.rounds)
        except KeyboardInterrupt:  # how a master ends whose clients have
            assert said
        thread.join(60)
    assert said["done"].returncode == 0, said["done"].stderr[-2000:]
    return rounds, said["done"].stdout


@pytest.mark.parametrize("name", ["plain", *(pytest.param(n, marks=pytest.mark.slow) for n in [*MORE][1:])])
def test_jvm_clients_are_what_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    said = compared(tmp_path, monkeypatch, MORE[name], fleet)
    assert said.split() == ["accepted:", "32"]


def test_clients_that_die_at_every_step_come_back_and_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = compared(tmp_path, monkeypatch, MORE["plain"], killed)
    assert said.split() == ["accepted:", "32", "deaths:", "27"]


@pytest.mark.slow
def test_the_runtime_of_phones_stays_within_a_millionth_a_round(tmp_path: Path) -> None:
    """Updates travel as they are: rounding at random would turn a last bit into a step of the codec."""
    twenty = ("data.devices=10", "train.cohort=10", "train.rounds=20")
    federation, programs = open_deployed(deployable(parse_experiment(EXPERIMENT, (*EXACT, *twenty))))
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, said = played(federation, deployed, programs, tmp_path, on_tflite)
    federation.engine.close()
    assert said.split() == ["accepted:", "200"]
    assert [r.accuracy for r in rounds] == pytest.approx([r.accuracy for r in expected], abs=0.005)
    before, after = (restore(federation, folder)[0].weights for folder in (simulated, deployed))
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value, rtol=0, atol=1e-6 * len(rounds))


@pytest.mark.slow
def test_jvm_clients_add_noise_of_their_own_and_count_their_answers(tmp_path: Path) -> None:
    noisy = (*EXACT, "privacy.mode=local", "privacy.noise-multiplier=4", "privacy.clip-norm=0.5")
    federation, programs = open_deployed(deployable(parse_experiment(EXPERIMENT, noisy)))
    folder = create(tmp_path / "deployed", federation.experiment)
    rounds, said = played(federation, folder, programs, tmp_path, fleet)
    federation.engine.close()
    assert said.split() == ["accepted:", "32"]
    size = sum(t.size for t in federation.spec.values())
    assert rounds[0].weights_norm == pytest.approx(4 * 0.5 * (size / 8) ** 0.5, rel=0.2)
    assert rounds[-1].privacy["answers"] == 4
    assert all(r.train_loss is None for r in rounds)


def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], command: Command) -> str:
    """Returns what clients printed that sent the simulator's packets and reached its weights."""
    simulated_packets = recorded(monkeypatch, "device_sim.rounds.clients", "answer_each")
    packets = arrived(monkeypatch)
    federation, programs = open_deployed(deployable(parse_experiment(EXPERIMENT, more)))
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, said = played(federation, deployed, programs, tmp_path, command)
    federation.engine.close()
    assert sorted(packets) == sorted(simulated_packets)
    assert told(rounds) == told(expected)
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]
    return said


def arrived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that fills with the SHA-256 of every packet that the coordinator judges."""
    import device_sim.deploy.master as module

    out: list[str] = []
    real: Callable[..., Any] = module.judge_by

    def judge_by(folding: Any) -> Callable[[bytes, int], Any]:
        judge = real(folding)

        def judged(packet: bytes, version: int) -> Any:
            out.append(hashlib.sha256(packet).hexdigest())
            return judge(packet, version)

        return judged

    monkeypatch.setattr(module, "judge_by", judge_by)
    return out
