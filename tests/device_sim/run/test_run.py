"""A run on disk: killed, damaged, resumed. Without TensorFlow, so that it can be killed often."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create, discard, locked, reopen
from device_sim.run.log import Round, read_rounds
from device_sim.run.loop import restore, simulate
from fl_mobile.agreement import MEMORIES
from fl_mobile.errors import DivergedError, RunError
from fl_mobile.server import checkpoint
from fl_mobile.storage.files import temporary
from fl_mobile.tensors import fp32_bytes, weights_hash
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation
from tests.device_sim.run_until_killed import EXPERIMENT

ROOT = Path(__file__).parents[3]


def experiment(*changes: str) -> Experiment:
    return parse_experiment(EXPERIMENT, changes)


def play(path: Path, *changes: str) -> tuple[list[Round], str]:
    """Returns the rounds and the final weights' hash."""
    federation = numpy_federation(experiment(*changes))
    folder = RunFolder(path) if path.exists() else create(path, federation.experiment)
    rounds = list(simulate(federation, folder))
    return rounds, weights_hash(restore(federation, folder)[0].weights)


def without_clock(rounds: list[Round]) -> list[dict[str, object]]:
    return [{k: v for k, v in vars(r).items() if k != "wall_seconds"} for r in rounds]


def test_it_learns_and_every_number_is_of_real_packets(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "run", "fleet.dropout-rate=0", "download.mode=full")
    assert rounds[-1].accuracy > 0.9
    assert rounds[-1].loss < 0.5 * rounds[0].loss
    size = fp32_bytes(NumpyTrainer(144, 3).spec)
    for done in rounds:
        assert done.uploads == 5
        assert done.accepted + sum(done.dropped.values()) == 5
        assert done.ratio == pytest.approx(size * done.uploads / done.upload_bytes)
        assert done.download_bytes % 5 == 0


def test_same_seed_same_rounds_and_hash_and_another_seed_another(tmp_path: Path) -> None:
    first, hash_a = play(tmp_path / "a")
    again, hash_b = play(tmp_path / "b")
    _, hash_c = play(tmp_path / "c", "seed=1")
    assert without_clock(first) == without_clock(again)
    assert hash_a == hash_b != hash_c


def _killed_once(path: Path, after: float) -> bool:
    """Starts or resumes the run, kills it after some seconds; returns whether it had finished before that."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.device_sim.run_until_killed", str(path)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        child.wait(timeout=after)
        assert child.returncode == 0
        return True
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return False


@pytest.mark.parametrize("moments", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed_ends_bit_identical(tmp_path: Path, moments: int) -> None:
    reference, expected = play(tmp_path / "reference")
    started = time.monotonic()
    assert _killed_once(tmp_path / "warm", after=60)
    whole = time.monotonic() - started
    rng, kills = random.Random(7), 0
    for attempt in range(1000):
        if kills >= moments:
            break
        path = tmp_path / f"run-{attempt}"
        while not _killed_once(path, after=rng.uniform(0.3, 1.0) * whole):
            kills += 1
        rounds, found = play(path)
        assert found == expected
        assert without_clock(rounds) == without_clock(reference)
        assert not list(path.rglob("*.tmp*")) or kills, "only a kill may leave a temporary file"
    assert kills >= moments


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("cut", [0, 1, 5, 12])
def test_resumes_from_every_round_boundary_even_between_log_and_checkpoint(
    tmp_path: Path, cut: int, memory: str
) -> None:
    """Keeps the checkpoint of round ``cut`` beside the log and memory of one round more: a crash between the two."""
    change = f"upload.memory={memory}"
    _, expected = play(tmp_path / "reference", change)
    federation = numpy_federation(experiment(change))
    folder = create(tmp_path / "run", federation.experiment)
    saved = b""
    for number, _ in enumerate(simulate(federation, folder), 1):
        if number == cut:
            saved = folder.checkpoint.read_bytes()
        if number == cut + 1:
            break
    folder.checkpoint.write_bytes(saved) if cut else folder.checkpoint.unlink()
    with open(folder.rounds, "a") as log:
        log.write('{"round_num": 99, "accu')
    assert play(folder.path, change)[1] == expected
    assert [done.round_num for done in read_rounds(folder)] == list(range(12))


def test_stop_rules(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "target", "stop.target-accuracy=0.6")
    assert rounds[-1].accuracy >= 0.6
    assert all(r.accuracy < 0.6 for r in rounds[:-1])
    rounds, _ = play(tmp_path / "patience", "stop.patience=2", "train.learning-rate=1e-9", "server.learning-rate=1e-9")
    losses = [r.loss for r in rounds]
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_offline_and_lost_devices_are_counted(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "run", "fleet.dropout-rate=0.5", "fleet.link=3g", "train.rounds=40")
    lost = {reason: sum(r.dropped.get(reason, 0) for r in rounds) for reason in ("offline", "lost")}
    assert 60 < lost["offline"] < 140
    assert lost["lost"] > 0
    for done in rounds:
        assert done.accepted == done.cohort - sum(done.dropped.values())
        assert done.uploads == done.cohort - done.dropped.get("offline", 0)


def test_a_round_nobody_survives_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    rounds, found = play(tmp_path / "run", "fleet.dropout-rate=0.999999999", "train.rounds=2")
    first = numpy_federation(experiment())
    assert [r.accepted for r in rounds] == [0, 0]
    assert rounds[0].ratio is None
    assert found == weights_hash(first.engine.initial)


def test_divergence_names_device_and_round_and_keeps_the_last_good_round(tmp_path: Path) -> None:
    class Explodes(NumpyTrainer):
        def train(self, weights, tasks, plan):  # type: ignore[no-untyped-def]
            updates = super().train(weights, tasks, plan)
            for task, update in zip(tasks, updates, strict=True):
                if plan.learning_rate < 0.47 and task.device >= 3:
                    update.delta["out/bias"][0] = np.nan
            return updates

    changes = ("train.schedule=exponential", "train.decay=0.98", "fleet.dropout-rate=0")
    federation = numpy_federation(experiment(*changes), numpy_engine(Explodes(144, 3)))
    folder = create(tmp_path / "run", federation.experiment)
    with pytest.raises(DivergedError, match=r"device \d+, round 5: tensor 'out/bias'"):
        list(simulate(federation, folder))
    assert restore(federation, folder)[0].round_num == 4
    assert len(read_rounds(folder)) == 4


def test_keeps_a_few_updates_and_no_more(tmp_path: Path) -> None:
    play(tmp_path / "run")
    kept = sorted(p.name for p in (tmp_path / "run" / "updates").glob("*.npz"))
    assert len(kept) == 4
    assert len({name.split("-device")[0] for name in kept}) == 2
    with np.load(tmp_path / "run" / "updates" / kept[0]) as file:
        assert {k: v.shape for k, v in file.items()} == {"out/kernel": (144, 3), "out/bias": (3,)}


def test_folders_are_never_overwritten_or_mixed(tmp_path: Path) -> None:
    create(tmp_path / "run", experiment())
    with pytest.raises(RunError, match="--resume"):
        create(tmp_path / "run", experiment())
    with pytest.raises(RunError, match="another experiment"):
        reopen(tmp_path / "run", experiment("seed=5"))
    with pytest.raises(RunError, match="holds no run"):
        reopen(tmp_path / "nothing")
    with (
        locked(RunFolder(tmp_path / "run")),
        pytest.raises(RunError, match="another process"),
        locked(RunFolder(tmp_path / "run")),
    ):
        pass


def test_a_run_killed_while_it_wrote_its_first_file_does_not_bar_the_folder(tmp_path: Path) -> None:
    """The sweep of faults found it: --out said "not empty, take --resume", and --resume said "no run here"."""
    left = temporary(RunFolder(tmp_path / "run").experiment)
    left.parent.mkdir()
    left.write_text("seed =")
    folder = create(tmp_path / "run", experiment())
    with locked(folder):
        assert sorted(p.name for p in folder.path.iterdir()) == ["experiment.toml", "layout.json"]


def test_a_run_that_failed_at_once_is_cleared_away_unless_a_strange_file_lies_there(tmp_path: Path) -> None:
    for strange in (False, True):
        folder = create(tmp_path / f"run-{strange}", experiment())
        folder.memory.mkdir()
        (folder.memory / "point.0.npz").write_bytes(b"x")
        folder.rounds.write_text("{")
        folder.timeline.write_text("{")
        if strange:
            (folder.path / "notes.txt").write_text("mine")
        discard(folder)
        assert folder.path.exists() == strange
    left = sorted(p.name for p in folder.path.iterdir())
    assert left == ["experiment.toml", "layout.json", "notes.txt"], "it can be resumed"


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "garbage", "text"])
def test_damaged_checkpoints_are_refused_with_a_remedy(tmp_path: Path, damage: str) -> None:
    play(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.npz"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[good.index(b"w/0.npy") + 200] ^= 1  # inside the first weight's values
    bad = {"empty": b"", "cut": good[:-40], "flip": bytes(flipped), "garbage": b"\0" * 500, "text": b"hello"}[damage]
    path.write_bytes(bad)
    with pytest.raises(RunError, match="damaged"):
        play(tmp_path / "run")


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    federation = numpy_federation(experiment())
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    checkpoint.save(tmp_path / "c.npz", state, {"note": 1})
    loaded, extra = checkpoint.load(tmp_path / "c.npz", state.spec)
    assert extra == {"note": 1}
    assert weights_hash(loaded.weights) == weights_hash(state.weights)
    assert {k: weights_hash(v) for k, v in loaded.slots.items()} == {k: weights_hash(v) for k, v in state.slots.items()}
    with pytest.raises(RunError, match="another model"):
        checkpoint.load(tmp_path / "c.npz", NumpyTrainer(143, 3).spec)


def test_missing_rounds_are_noticed(tmp_path: Path) -> None:
    play(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.rounds.write_text("\n".join(folder.rounds.read_text().splitlines()[:3]))
    with pytest.raises(RunError, match="only 3 are readable"):
        play(folder.path)


def test_log_is_strict_json(tmp_path: Path) -> None:
    play(tmp_path / "run", "fleet.dropout-rate=0.999999999", "train.rounds=1")

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
