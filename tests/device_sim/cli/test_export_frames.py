"""``fl-mobile export --frames``: models that no dataset fits, with several inputs, tokens, ranges and open batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from device_sim.cli import make_app
from export.model.serving import SIGNATURE
from export.tflite.graph import read_graph

pytestmark = pytest.mark.tf

RNG = np.random.default_rng(0)
CAMERA = RNG.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
FLOATS = RNG.random((40, 6)).astype(np.float32)
TOKENS = RNG.integers(0, 20, (40, 5)).astype(np.int32)
CLASSES = RNG.integers(0, 3, 40)


def two_inputs() -> Any:
    from keras import Model, layers

    camera, sensors = layers.Input((8, 8, 1), name="camera"), layers.Input((6,), name="sensors")
    x = layers.Concatenate()([layers.Flatten()(layers.Rescaling(1 / 255)(camera)), sensors])
    return Model([camera, sensors], [layers.Dense(3, name="kind")(x), layers.Dense(2, name="box")(x)])


def tokens() -> Any:
    from keras import Sequential, layers

    return Sequential([layers.Input((5,), dtype="int32"), layers.Embedding(20, 4), layers.Flatten(), layers.Dense(3)])


def numbers(rows: int | None = None) -> Any:
    from keras import Sequential, layers

    return Sequential([layers.Input((6,), batch_size=rows), layers.Dense(8, "relu"), layers.Dense(3)])


def pixels() -> Any:
    from keras import Sequential, layers

    return Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )


CASES: dict[str, tuple[Any, dict[str, np.ndarray], tuple[str, ...], dict[str, str]]] = {
    # name → model, arrays, options, dtypes of the file's inputs
    "several": (two_inputs, {"camera": CAMERA, "sensors": FLOATS}, (), {"camera": "uint8", "sensors": "float32"}),
    "labelled": (
        two_inputs,
        {"camera": CAMERA, "sensors": FLOATS, "y": CLASSES},
        ("--output", "kind"),
        {"camera": "uint8", "sensors": "float32"},
    ),
    "by-name": (
        two_inputs,
        {"camera": CAMERA / np.float32(255), "sensors": FLOATS},
        ("--input", "camera=float32:0..1", "--input", "sensors=float32:0..1"),
        {"camera": "float32", "sensors": "float32"},
    ),
    "tokens": (tokens, {"x": TOKENS}, (), {"features": "int32"}),
    "range": (pixels, {"image": CAMERA / np.float32(255)}, ("--input", "float32:0..1"), {"image": "float32"}),
    "normalised": (pixels, {"x": CAMERA / np.float32(255)}, (), {"image": "float32"}),
    "batch": (numbers, {"x": FLOATS, "y": CLASSES}, ("--batch-size", "4"), {"features": "float32"}),
    "built-for-four": (lambda: numbers(4), {"x": FLOATS}, ("--batch-size", "4"), {"features": "float32"}),
    "any-batch": (numbers, {"x": FLOATS}, ("--batch-size", "0"), {"features": "float32"}),
}


def ran(*arguments: str) -> Any:
    return CliRunner().invoke(make_app(), list(arguments))


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(case: str) -> list[str]:
        import keras

        make, arrays, options, _ = CASES[case]
        keras.utils.set_random_seed(0)
        make().save(tmp_path / "model.keras")
        np.savez(tmp_path / "frames.npz", **arrays)  # type: ignore[arg-type]
        paths = ["--frames", str(tmp_path / "frames.npz"), "--out", str(tmp_path / "out")]
        return ["export", str(tmp_path / "model.keras"), *paths, *options]

    return save


@pytest.mark.sample(r"tokens|labelled|range|several")
@pytest.mark.parametrize("case", CASES)
def test_inputs_are_taken_as_they_are(case: str, saved: Any, tmp_path: Path) -> None:
    done = ran(*saved(case), "--recipe", "float32", "--recipe", "int8", "--format", "json", "-q")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [artifact["recipe"] for artifact in told["artifacts"]] == ["float32", "int8"]
    assert told["proof_examples"] == told["calibration_examples"] == 20
    assert (told["keras_accuracy"] is not None) == ("y" in CASES[case][1])
    for name in ("float32", "int8"):
        signature = read_graph((tmp_path / "out" / f"{name}.tflite").read_bytes()).signature(SIGNATURE)
        assert {entry.name: entry.dtype for entry in signature.inputs} == CASES[case][3]


def test_any_number_of_rows_after_resizing(saved: Any, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    assert ran(*saved("any-batch"), "--recipe", "float32", "--recipe", "int8", "-q").exit_code == 0
    for name in ("float32", "int8"):
        runner = Interpreter(str(tmp_path / "out" / f"{name}.tflite")).get_signature_runner(SIGNATURE)
        assert runner(features=FLOATS[:7])["probabilities"].shape == (7, 3)
    assert "any number after resizing" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


MISTAKES: dict[str, tuple[str, dict[str, np.ndarray], tuple[str, ...], str]] = {
    "missing": ("several", {"camera": CAMERA}, (), "expected an array for each of the model's inputs 2 (camera"),
    "lengths": ("several", {"camera": CAMERA, "sensors": FLOATS[:9]}, (), "a row of every array for each"),
    "whose": ("several", {"camera": CAMERA, "sensors": FLOATS, "y": CLASSES}, (), "say which with --output NAME"),
    "text": ("tokens", {"x": np.array([["a", "b"]] * 4)}, (), "expected numbers [n, ...]"),
    "both": ("tokens", {"x": TOKENS}, ("--dataset", "digits"), "--dataset is about other examples than --frames"),
    "set": ("tokens", {"x": TOKENS}, ("--set", "seed=3"), "--set is about other examples than --frames"),
    "tuned": ("batch", {"x": FLOATS, "y": CLASSES}, ("--recipe", "qat-int8"), "needs a tuning set"),
    "fixed": ("built-for-four", {"x": FLOATS}, ("--batch-size", "3"), "built for batches of 4"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_one_line(mistake: str, saved: Any, tmp_path: Path) -> None:
    case, arrays, options, message = MISTAKES[mistake]
    command = saved(case)
    np.savez(tmp_path / "frames.npz", **arrays)  # type: ignore[arg-type]
    done = ran(*command, *options, "-q")
    assert done.exit_code != 0
    assert message in f"{done.output}{done.exception}"
    assert not (tmp_path / "out").exists()
