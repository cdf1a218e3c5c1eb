"""LiteRT.js in Chromium answers as LiteRT in Python does: inference and training, call after call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import RUNTIMES, verify_bundle
from export.bundles.folder import read_bundle
from export.convert.recipes import RECIPES
from export.runtimes import answers, missing_runtimes, open_session
from export.runtimes.browser import BrowserError, BrowserModel
from export.verify.golden import unpack_golden
from fl_mobile.errors import ConfigError, VerifyError
from tests.export.pages.conftest import RECIPES_HERE

pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.usefixtures("browser")]


@pytest.mark.parametrize("bundle", ["digits_bundle", "colours_bundle"])
def test_golden_frames_of_every_recipe(bundle: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(bundle)
    proof = verify_bundle(path, runtimes=["litert-js"])
    assert {replay.runtime for replay in proof.replays} == {"litert-js"}
    assert {replay.recipe for replay in proof.replays} == {f.stem for f in path.glob("*.tflite")}
    assert all(replay.max_abs_diff <= RECIPES[replay.recipe].tolerance.replay_abs for replay in proof.replays)


@pytest.mark.parametrize("recipe", RECIPES_HERE)
def test_same_first_class_as_python(recipe: str, digits_bundle: Path) -> None:
    bundle = read_bundle(digits_bundle)
    golden = unpack_golden(bundle.files["golden.npz"])
    rows = answers("litert-js", bundle.files[f"{recipe}.tflite"], golden.frames["image"])
    assert (rows.argmax(axis=1) == golden.outputs[recipe]["probabilities"].argmax(axis=1)).all()
    assert rows.dtype == golden.outputs[recipe]["probabilities"].dtype


def test_it_catches_an_artifact_that_answers_otherwise(digits_bundle: Path) -> None:
    bundle = read_bundle(digits_bundle)
    golden = unpack_golden(bundle.files["golden.npz"])
    rows = answers("litert-js", bundle.files["float32.tflite"], golden.frames["image"][::-1].copy())
    assert (rows.argmax(axis=1) != golden.outputs["float32"]["probabilities"].argmax(axis=1)).any()


def test_it_runs_only_when_it_is_named(digits_bundle: Path) -> None:
    assert "litert-js" in missing_runtimes()
    assert RUNTIMES["litert-js"].missing() is None
    assert "litert-js" not in {replay.runtime for replay in verify_bundle(digits_bundle).replays}
    with pytest.raises(ConfigError, match="Did you mean 'litert-js'"):
        verify_bundle(digits_bundle, runtimes=["litertjs"])


def test_inputs_that_do_not_fit_are_refused(digits_bundle: Path) -> None:
    frame = np.zeros((1, 8, 8, 1), np.uint8)
    with BrowserModel.load((digits_bundle / "int8.tflite").read_bytes()) as model:
        for wrong in ({}, {"image": frame[:, :7]}, {"image": frame.astype(np.float32)}, {"picture": frame}):
            with pytest.raises(ValueError, match="input"):
                model.run("serving_default", wrong)
        with pytest.raises(ValueError, match="signature 'train' is not one of serving_default"):
            model.run("train", {"image": frame})
        assert model.run("serving_default", {"image": frame})["probabilities"].shape == (1, 10), "still alive"
    model.close()
    with pytest.raises(BrowserError, match="ended"):
        model.run("serving_default", {"image": frame})


def test_bytes_the_browser_refuses_are_a_verify_error(digits_bundle: Path) -> None:
    data = bytearray((digits_bundle / "float32.tflite").read_bytes())
    with pytest.raises(BrowserError, match="page threw"):
        BrowserModel.load(bytes(data[: len(data) // 3]))
    with pytest.raises(VerifyError):
        open_session("litert-js", bytes(data[: len(data) // 3]))


def test_no_browser_is_left_behind(digits_bundle: Path) -> None:
    import psutil

    data = (digits_bundle / "int8.tflite").read_bytes()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    session = open_session("litert-js", data)
    started = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert started
    del session  # its browser ends with it
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_a_browser_that_is_killed_is_an_error_not_a_hang(digits_bundle: Path) -> None:
    with BrowserModel.load((digits_bundle / "int8.tflite").read_bytes()) as model:
        model._tab.process.kill()
        with pytest.raises(BrowserError, match="ended"):
            model.run("serving_default", {"image": np.zeros((1, 8, 8, 1), np.uint8)})


def small_program() -> Any:
    import keras

    from export.training.program import build_training_program

    keras.utils.set_random_seed(4)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    return model, build_training_program(model, batch_size=16, optimizer="momentum")


def test_a_training_program_learns_the_same(data: Any) -> None:
    """Twenty steps on variables that live in the page, against the same program in LiteRT's Python interpreter."""
    from export.training import open_session as open_training
    from export.training.session import TrainingSession
    from fl_mobile.models import keras_bridge

    model, program = small_program()
    weights = keras_bridge.read(model)
    python = open_training(program.tflite, program.contract)
    with BrowserModel.load(program.tflite) as browser:
        web = TrainingSession(program.contract, browser.run)
        for session in (python, web):
            session.set_weights(weights)
        losses = []
        for step in range(20):
            x = (data.x_train[16 * step : 16 * step + 16] / 255).astype(np.float32)
            y = data.y_train[16 * step : 16 * step + 16]
            ours, theirs = (s.train(x, y, learning_rate=0.1, seed=step) for s in (python, web))
            assert theirs == pytest.approx(ours, abs=1e-4)
            losses.append(theirs[0])
        assert losses[-1] < losses[0], "it learns"
        for path, value in python.get_weights().items():
            np.testing.assert_allclose(web.get_weights()[path], value, atol=1e-4, err_msg=path)
        assert any((web.get_weights()[path] != value).any() for path, value in weights.items())
