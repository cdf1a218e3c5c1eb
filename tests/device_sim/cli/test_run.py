"""Whole runs through the real command: finished, resumed, interrupted, out of disk, damaged, proven."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.experiment.toml import read_experiment
from device_sim.run.folder import RunFolder
from device_sim.run.log import read_rounds
from device_sim.verify.run import verify_run
from export.bundles.folder import Trust
from fl_mobile.errors import FlMobileError, VerifyError
from tests.device_sim.cli_runs import SMALL, Ended, command, environment, fl_mobile, interruptible, the_message

pytestmark = pytest.mark.tf

RECIPES = ("--set", 'output.recipes=["float32", "int8"]')


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run of six rounds with its bundle; tests must not change it."""
    path = tmp_path_factory.mktemp("finished") / "run"
    ended = fl_mobile("simulate", *SMALL, *RECIPES, "--rounds", "6", "--out", path, "--format", "json", cold=True)
    assert ended.code == 0, ended.err
    return path, ended


def test_a_run_leaves_every_file_and_a_summary_of_real_numbers(finished: tuple[Path, Ended]) -> None:
    path, ended = finished
    folder, summary = RunFolder(path), ended.json
    assert summary == json.loads(folder.summary.read_text())
    rounds = read_rounds(folder)
    assert summary["rounds"] == len(rounds) == 6
    assert summary["accuracy"] == rounds[-1].accuracy
    assert summary["best_accuracy"] == rounds[summary["best_round"]].accuracy
    traffic = summary["traffic"]
    assert traffic["upload_bytes"] == sum(r.upload_bytes for r in rounds)
    assert traffic["upload_ratio"] == pytest.approx(
        traffic["fp32_model_bytes"] * traffic["uploads"] / traffic["upload_bytes"]
    )
    kinds = {row["kind"]: row for row in summary["by_kind"]}
    assert list(kinds) == ["dense", "norm and bias"]
    assert kinds["dense"]["parameters"] + kinds["norm and bias"]["parameters"] == summary["model"]["parameters"]
    assert traffic["upload_bytes_per_device"] * 12 == pytest.approx(traffic["upload_bytes"])
    devices = summary["devices"]
    assert devices["accepted"] + sum(devices["dropped"].values()) == devices["asked"] == 24
    assert traffic["downloads"] == devices["asked"] - devices["dropped"].get("offline", 0)
    assert summary["command"].startswith("fl-mobile simulate --set data.dataset=digits")
    assert read_experiment(folder.experiment).train.rounds == 6
    sizes = {a["file"]: a["bytes"] for a in summary["export"]["artifacts"]}
    assert sizes == {name: (folder.bundle / name).stat().st_size for name in ("float32.tflite", "int8.tflite")}
    assert summary["export"]["proof_examples"] + 100 == summary["dataset"]["test_examples"]
    assert [p.name for p in path.iterdir() if p.name.startswith(".")] == []


def test_stderr_shows_progress_and_nothing_of_tensorflow(finished: tuple[Path, Ended]) -> None:
    lines = finished[1].err.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("round ")] == [f"{n}/6" for n in range(1, 7)]
    for word in ("accuracy", "loss", "up ", "down ", "ratio", "dropped", "ETA"):
        assert word in lines[-12]
    known = (
        "Loading",
        "12 devices",
        "task ",
        "partition ",
        "engine ",
        "round ",
        "model.keras:",
        "keras:",
        "float32:",
        "int8:",
        "bundle:",
    )
    assert [line for line in lines if not line.startswith(known)] == []


def test_a_finished_run_is_not_run_again(finished: tuple[Path, Ended]) -> None:
    path, ended = finished
    again = fl_mobile("simulate", "--out", path, "--resume", "--format", "json")
    assert (again.code, again.json) == (0, ended.json)
    assert "finished already" in again.err
    assert "Loading" not in again.err
    table = fl_mobile("simulate", "--out", path, "--resume").out
    for shown in ("test accuracy", "upload ratio", "traffic per device", "int8.tflite", "parity", "verified"):
        assert shown in table


def test_resuming_with_another_key_is_refused(finished: tuple[Path, Ended]) -> None:
    ended = fl_mobile("simulate", "--out", finished[0], "--resume", "--seed", "5")
    assert ended.code == 7
    assert "another experiment" in the_message(ended)


def test_a_finished_run_goes_on_with_more_rounds(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    ended = fl_mobile("simulate", "--out", run, "--resume", "--rounds", "7", "--no-export", "--format", "json")
    assert ended.code == 0, ended.err
    assert (ended.json["rounds"], ended.json["stop_reason"]) == (7, "finished 7 rounds")
    assert read_rounds(RunFolder(run))[:6] == read_rounds(RunFolder(finished[0]))
    assert not (run / "bundle").exists(), "it was of the model of round 6"
    assert [check.part for check in verify_run(RunFolder(run))][:3] == [
        "experiment.toml",
        "rounds.jsonl",
        "checkpoint.npz",
    ]


def test_verify_proves_the_run_and_its_bundle(finished: tuple[Path, Ended]) -> None:
    run = fl_mobile("verify", finished[0], "--format", "json")
    assert run.code == 0, run.err
    parts = [check["part"] for check in run.json["checks"]]
    expected = ["experiment.toml", "rounds.jsonl", "checkpoint.npz", "model.keras", "signature", "bundle"]
    beside = ["model-best.keras"] if (finished[0] / "model-best.keras").exists() else []
    assert parts == [*expected[:4], *beside, *expected[4:]]
    assert run.err == ""
    bundle = fl_mobile("verify", finished[0] / "bundle")
    assert bundle.code == 0, bundle.err
    assert "int8.tflite" in bundle.out
    assert "NONE: unsigned" in bundle.out
    assert "who made it was not checked" in bundle.out


def test_the_card_of_a_run_says_where_its_model_comes_from(finished: tuple[Path, Ended]) -> None:
    path, ended = finished
    card = (path / "bundle" / "model_card.md").read_text()
    devices, dataset = ended.json["devices"], ended.json["dataset"]
    for fact in (
        "# Model card: logistic",
        "- rounds: 6",
        f"- devices: 12, simulated; {devices['accepted']} updates were averaged",
        "fedavg, 4 devices a round, uploads by codec q4+deflate",
        f"- training data: {dataset['name']}",
        f"- fingerprint: {dataset['fingerprint']}",
        f"- training examples: {dataset['train_examples']:,}",
        "No differential privacy",
        "saw them in training: no",
        ended.json["experiment_sha256"],
        "`fl-mobile simulate experiment.toml`",
    ):
        assert fact in card, fact


def test_a_run_without_the_wanted_signature_is_refused(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    ended = fl_mobile("verify", finished[0], "--require-signature")
    assert ended.code == 9
    assert "failed at signature" in the_message(ended)
    bare = Path(shutil.copytree(finished[0], tmp_path / "bare"))
    shutil.rmtree(bare / "bundle")
    _edit_summary(lambda summary: summary.update(export=None))(bare)
    with pytest.raises(VerifyError, match="no bundle, so there is no signature"):
        verify_run(RunFolder(bare), Trust(required=True))


def _edit_summary(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        summary = json.loads((run / "summary.json").read_text())
        change(summary)
        (run / "summary.json").write_text(json.dumps(summary))

    return damage


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text((run / name).read_text().replace(old, new, 1)) and None


def _drop_last_round(run: Path) -> None:
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(lines[:-1]))


def _flip(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(data)

    return damage


def _other_weights(run: Path) -> None:
    import keras

    model = keras.saving.load_model(run / "model.keras")
    weight = model.trainable_variables[0]
    weight.assign(np.asarray(weight) + np.float32(1e-3))
    model.save(run / "model.keras")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "experiment changed": (_replace("experiment.toml", "rounds = 6", "rounds = 7"), "experiment.toml"),
    "round dropped": (_drop_last_round, "rounds.jsonl"),
    "bytes polished": (_replace("rounds.jsonl", '"upload_bytes": ', '"upload_bytes": 1'), "rounds.jsonl"),
    "accuracy polished": (_edit_summary(lambda s: s.update(accuracy=0.99)), "accuracy"),
    "weights changed": (_other_weights, "model.keras"),
    "model damaged": (lambda run: (run / "model.keras").write_bytes(b"not a model") and None, "model.keras"),
    "checkpoint damaged": (_flip("checkpoint.npz"), "checkpoint.npz"),
    "artifact damaged": (_flip("bundle/int8.tflite"), "int8.tflite"),
    "artifact missing": (lambda run: (run / "bundle/float32.tflite").unlink(), "float32.tflite"),
    "summary cut": (lambda run: (run / "summary.json").write_text('{"rounds": 6') and None, "summary.json"),
    "summary emptied": (_edit_summary(lambda s: s.pop("traffic")), "traffic"),
}


@pytest.mark.parametrize(("damage", "word"), DAMAGE.values(), ids=DAMAGE)
def test_verify_catches(
    finished: tuple[Path, Ended], tmp_path: Path, damage: Callable[[Path], None], word: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    damage(run)
    with pytest.raises(FlMobileError, match=word):
        verify_run(RunFolder(run))


def test_verify_catches_a_bundle_of_another_model(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "bundle")
    other = fl_mobile(
        *("export", "logistic", "--dataset", "digits", "--out", run / "bundle", "--recipe", "float32"),
        *("--recipe", "int8", "--set", "seed=9", "-q"),
    )
    assert other.code == 0, other.err
    assert other.err == ""
    with pytest.raises(VerifyError, match="another model"):
        verify_run(RunFolder(run))


def test_a_damaged_bundle_ends_with_exit_code_9(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    shutil.copytree(finished[0] / "bundle", tmp_path / "bundle")
    _flip("int8.tflite")(tmp_path / "bundle")
    ended = fl_mobile("verify", tmp_path / "bundle")
    assert ended.code == 9
    assert "int8.tflite" in the_message(ended)


@pytest.mark.sample(r"round.*")
@pytest.mark.parametrize("moment", ["round 2/6", "model.keras:", "float32:"])
def test_ctrl_c_saves_and_resume_ends_at_the_same_bytes(
    finished: tuple[Path, Ended], tmp_path: Path, moment: str
) -> None:
    run = tmp_path / "run"
    arguments = command("simulate", *SMALL, *RECIPES, "--rounds", "6", "--out", run, "--workers", "1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(arguments, text=True, env=environment(), preexec_fn=interruptible, **pipes)
    assert child.stderr is not None
    told = ""
    for line in child.stderr:
        told += line
        if line.startswith(moment):
            child.send_signal(signal.SIGINT)
            break
    told += child.stderr.read()
    ended = Ended(child.wait(timeout=60), child.stdout.read() if child.stdout else "", told)
    assert (ended.code, ended.out) == (130, "")
    assert f"fl-mobile simulate --out {run} --resume" in the_message(ended)
    assert 2 <= len(read_rounds(RunFolder(run))) <= 6, "on a busy machine rounds go on until the signal arrives"

    resumed = fl_mobile("simulate", "--out", run, "--resume", "--workers", "2", "--format", "json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["model"] == finished[1].json["model"]
    played, whole = (
        [replace(done, wall_seconds=0.0) for done in read_rounds(RunFolder(p))] for p in (run, finished[0])
    )
    assert played == whole
    hashes = [[a["sha256"] for a in s["export"]["artifacts"]] for s in (resumed.json, finished[1].json)]
    assert hashes[0] == hashes[1]


def test_a_run_that_trained_nothing_ends_with_that_and_an_exit_code(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = fl_mobile("simulate", *SMALL, "--set", "fleet.dropout-rate=0.9999999", "--rounds", "1", "--out", run)
    assert ended.code == 7
    assert "nothing was trained: in 1 rounds 4 devices were asked" in the_message(ended)
    assert "warning" in ended.out
    assert "best" not in ended.out, "of the weights it began with"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["warnings"][0].startswith("nothing was trained")
    assert summary["export"] is None, "first weights are not worth a bundle"


def test_divergence_names_device_and_round_and_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = fl_mobile("simulate", *SMALL, "--set", "train.loss=mse", "--set", "train.learning-rate=1e12", "--out", run)
    message = the_message(ended)
    assert ended.code == 6
    for word in ("device ", "round 1", "train.learning-rate"):
        assert word in message
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_refused_and_kept(finished: tuple[Path, Ended], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    (run / "summary.json").unlink()
    _flip("checkpoint.npz")(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    ended = fl_mobile("simulate", "--out", run, "--resume")
    assert ended.code == 7
    assert "checkpoint.npz: the checkpoint is damaged" in the_message(ended)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("limit", "refused"), [(2_000, "temporary files")])
def test_a_full_disk_leaves_whole_files_and_the_run_can_go_on(tmp_path: Path, limit: int, refused: str) -> None:
    def no_file_above() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = tmp_path / "run"
    arguments = (*SMALL, "--set", "output.keep-updates=0", "--no-export", "--rounds", "2", "--out", run)
    ended = fl_mobile("simulate", *arguments, before=no_file_above)
    assert ended.code == 12
    assert refused in the_message(ended)
    assert "Make room" in the_message(ended)
    assert not list(tmp_path.rglob("*.tmp*"))
    if refused == "temporary files":  # before the first checkpoint there is nothing to keep
        assert not run.exists()
    else:
        assert len(read_rounds(RunFolder(run))) == 2
        again = fl_mobile("simulate", "--out", run, "--resume", "--no-export", "--format", "json")
        assert again.code == 0, again.err
        assert again.json["rounds"] == 2
