"""What escapes from TensorFlow in the middle of a run: one line that says where, the long text in a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.engines import Task
from device_sim.engines.trainers.litert import LitertTrainer, Programs
from device_sim.run.errors import kept_errors
from device_sim.run.folder import RunFolder
from fl_mobile.errors import ExportError, TrainingError, VerifyError
from fl_mobile.records import FitPlan
from tests.device_sim import brittle_models
from tests.device_sim.cli_runs import fl_mobile, the_message

pytestmark = pytest.mark.tf

COMMON = {
    "dataset": "digits",
    "devices": 12,
    "cohort": 4,
    "epochs": 1,
    "rounds": 3,
    "engine": "keras",
    "keep_updates": 0,
}
UNROUNDABLE = "tests.device_sim.brittle_models:unroundable"
ASSERTED = r"layer 'brittle' \(Brittle\), operation Assert: assertion failed: \[too bright\]"


def digits(model: Any, **keys: Any) -> device_sim.Run:
    chosen: dict[str, Any] = {**COMMON, "recipes": [], **keys}
    return device_sim.simulate(model, chosen.pop("dataset"), **chosen)


def failure(run: device_sim.Run) -> TrainingError:
    with run, pytest.raises(TrainingError) as caught:
        run.finish(progress=False)
    assert "\n" not in str(caught.value)
    return caught.value


def told(error: TrainingError, path: Path) -> str:
    """Returns the line, after checking that the file in the folder begins with it and goes on with what it is of."""
    line, named, rest = str(error).partition(f" (the whole text: {path / 'errors.txt'})")
    assert named
    text = (path / "errors.txt").read_text()
    assert text.startswith(f"{line}\n\nTraceback (most recent call last)")
    assert len(text) > 1000, "with the frames of the model's own file"
    return line + rest


def dimmed(most: float) -> Callable[[Any, Any], None]:
    """Returns a callback after which so much is too bright for a layer."""
    return lambda run, done: setattr(brittle_models, "BRIGHT", most)


@pytest.fixture(autouse=True)
def as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brittle_models, "BRIGHT", brittle_models.BRIGHT)


@pytest.mark.parametrize("pool", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_command_line_tells_device_round_layer_and_operation(tmp_path: Path, pool: str) -> None:
    out, model = tmp_path / "run", "tests.device_sim.brittle_models:asserts_in_training"
    keys = ("data.dataset=digits", "data.devices=12", "train.cohort=4", "engine.name=keras", "engine.workers=2")
    ended = fl_mobile(
        *("simulate", "--out", out, "--rounds", "2", "--no-export", "--quiet"),
        *(part for key in (*keys, f"model.name={model}", f"engine.pool={pool}") for part in ("--set", key)),
    )
    assert ended.code == TrainingError.exit_code
    line = the_message(ended)
    assert re.fullmatch(rf"round 1, device \d+: training failed in {ASSERTED} \(the whole text: \S+/errors.txt\)", line)
    assert [file.name for file in out.iterdir()] == ["errors.txt"], "no half of a run"
    assert "brittle_models.py" in (out / "errors.txt").read_text()


def test_nothing_of_a_failed_first_round_is_in_the_way_of_the_next_run(tmp_path: Path) -> None:
    line = told(failure(digits(brittle_models.asserts_in_training, out=tmp_path)), tmp_path)
    assert re.fullmatch(rf"round 1, device \d+: training failed in {ASSERTED}", line)
    first = (tmp_path / "errors.txt").read_text()
    line = told(failure(digits(brittle_models.raises_in_training, out=tmp_path)), tmp_path)
    assert line.endswith("layer 'brittle' (Brittle), operation PyFunc: ZeroDivisionError: by nothing")
    assert (tmp_path / "errors.txt").read_text() != first, "of two errors the last one is there"
    with digits("logistic", out=tmp_path, rounds=1) as run:
        run.finish(progress=False)
    assert not (tmp_path / "errors.txt").exists()


def test_a_run_that_failed_later_goes_on_once_its_layer_is_mended(tmp_path: Path) -> None:
    path, model = tmp_path / "run", brittle_models.raises_in_training
    brittle_models.BRIGHT = 99.0
    run = digits(model, out=path, callbacks=[lambda run, done: dimmed(99.0 if len(run.rounds) < 2 else 1.0)(run, done)])
    for error in (failure(run), failure(digits(model, out=path, resume=True))):
        line = told(error, path)
        assert re.match(
            r"round 3, device \d+: training failed in layer 'brittle' \(Brittle\), operation PyFunc: ", line
        )
        assert line.endswith(". 2 finished rounds are safe: mend it, and --resume goes on")
    brittle_models.BRIGHT, found = 99.0, []
    for out, resume in ((path, True), (tmp_path / "whole", False)):
        with digits(model, out=out, resume=resume) as run:
            found.append(run.finish(progress=False).model().get_weights())
        assert len(run.rounds) == 3
        assert not (out / "errors.txt").exists()
    for mended, whole in zip(*found, strict=True):
        np.testing.assert_array_equal(mended, whole)


def test_in_memory_the_long_text_is_with_the_error_and_the_run_goes_on() -> None:
    with digits(brittle_models.raises_in_training) as run:
        for _ in range(2):
            with pytest.raises(TrainingError) as caught:
                list(run)
            assert re.fullmatch(r"round 1, .*\(the whole text: `details` of this error; .*\)", str(caught.value))
            assert "brittle_models.py" in caught.value.details
        brittle_models.BRIGHT = 99.0
        assert len(list(run)) == 3


def test_whose_examples_the_model_fails_on_is_told(tmp_path: Path) -> None:
    model = brittle_models.asserts_in_evaluation
    line = told(failure(digits(model, out=tmp_path / "server")), tmp_path / "server")
    assert re.fullmatch(rf"round 1, the server's examples: evaluation failed in {ASSERTED}", line)


def test_what_fails_after_the_last_round_leaves_the_rounds(tmp_path: Path) -> None:
    brittle_models.BRIGHT = 99.0
    keys = {"device_test_fraction": 0.5, "rounds": 1, "out": tmp_path}
    line = told(failure(digits(brittle_models.raises_in_evaluation, **keys, callbacks=[dimmed(1.0)])), tmp_path)
    assert re.match(r"after round 1, device \d+: evaluation failed in layer 'brittle' \(Brittle\), ", line)
    assert line.endswith(". 1 finished round is safe: mend it, and --resume goes on")
    brittle_models.BRIGHT = 99.0
    with digits(brittle_models.raises_in_evaluation, **keys, resume=True) as run:
        assert run.finish(progress=False).summary["federated_evaluation"]["devices"]


@pytest.mark.slow
def test_the_command_that_a_late_error_of_the_export_gives_goes_on_and_finishes(tmp_path: Path) -> None:
    out, recipes = tmp_path / "run", 'output.recipes=["int8"]'
    keys = ("data.dataset=digits", "data.devices=12", "train.cohort=4", "model.name=" + UNROUNDABLE, recipes)
    ended = fl_mobile("simulate", "--out", out, "--rounds", "2", *(part for key in keys for part in ("--set", key)))
    assert ended.code
    line = the_message(ended)
    assert re.match("export of int8: .* Nothing that was trained is lost: .*model.keras and summary.json are", line)
    before = (out / "checkpoint.npz").read_bytes()
    again = shlex.split(line.partition("Go on with: fl-mobile ")[2])
    ended = fl_mobile(*again, "--format", "json")
    assert ended.code == 0, ended.err
    assert [made["recipe"] for made in ended.json["export"]["artifacts"]] == ["float32"]
    assert (out / "bundle" / "float32.tflite").exists()
    assert (out / "checkpoint.npz").read_bytes() == before, "no round is played again"
    assert fl_mobile("verify", out, "--trust-code").code == 0


@pytest.mark.slow
def test_a_recipe_that_fails_late_leaves_the_others_written(tmp_path: Path) -> None:
    out, recipes = tmp_path / "run", 'output.recipes=["int8", "float32"]'
    keys = ("data.dataset=digits", "data.devices=12", "train.cohort=4", "model.name=" + UNROUNDABLE, recipes)
    ended = fl_mobile("simulate", "--out", out, "--rounds", "1", *(part for key in keys for part in ("--set", key)))
    assert ended.code == ExportError.exit_code
    assert re.match(r"int8 failed: runtime 'litert' refuses .* The others are written: float32\.", the_message(ended))
    assert (out / "bundle" / "float32.tflite").exists()


def test_what_a_late_error_gives_to_a_program_goes_on_too(tmp_path: Path) -> None:
    def opened(**more: Any) -> device_sim.Run:
        return digits(lambda: brittle_models.unroundable(), out=tmp_path, rounds=1, **more)

    with opened() as run, pytest.raises((ExportError, VerifyError)) as caught:
        run.finish(recipes=["int8"], progress=False)
    call = f"device_sim.simulate(…, out={str(tmp_path)!r}, resume=True).finish(recipes=['float32'])"
    assert str(caught.value).endswith(f"Go on with: {call}")
    with opened(resume=True) as run:
        assert run.finish(recipes=["float32"], progress=False).summary["export"]["artifacts"]


def test_tokens_that_come_as_they_are_asked_for_are_named_when_they_come() -> None:
    def client(number: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.random.default_rng(number).integers(0, 49 if number == 5 else 40, (20, 6)).astype(np.int32)
        return tokens, tokens.sum(axis=1) % 2

    keys = {"devices": 6, "cohort": 6, "rounds": 2, "dropout_rate": 0.0, "recipes": [], "workers": 1}
    error = failure(device_sim.simulate(brittle_models.words, client, client(99), engine="keras", **keys))
    assert re.match(
        r"round 1, device 5: training failed in layer 'words' \(Embedding\), operation \w+: ind", str(error)
    )


def test_the_phones_runtime_names_the_device_too() -> None:
    trainer = LitertTrainer(Programs(brittle_models.words, np.zeros((2, 6), np.int32)))
    tasks = [Task(d, np.full((4, 6), 39 + (d == 8), np.int32), np.zeros(4, np.int64), d) for d in (3, 8)]
    plan = FitPlan(epochs=1, batch_size=4, from_logits=True)
    for work, doing in ((trainer.train, "training"), (trainer.score, "evaluation")):
        with pytest.raises(TrainingError, match=rf"^device 8: {doing} failed: .*GATHER"):
            work(trainer.initial, tasks, plan)


def test_a_disk_that_takes_no_more_is_not_what_failed(tmp_path: Path) -> None:
    (tmp_path / "errors.txt").mkdir()
    told = r"^round 1, as it was \(the whole text could not be written to .*: \w"
    with pytest.raises(TrainingError, match=told), kept_errors(RunFolder(tmp_path), "round 1", safe=0):
        raise TrainingError("as it was", details="\udc80 of a name that is no text")
