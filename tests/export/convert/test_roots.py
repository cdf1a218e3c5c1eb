"""Reciprocal square roots of 0: numbers where Keras answers numbers, in every recipe; red without the mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.pipeline import export_model
from export.runtimes import real_values, run_frames
from export.tflite.graph import read_graph
from export.verify.measured import check_parity, make_reference, measure_parity
from fl_mobile.errors import VerifyError

pytestmark = pytest.mark.tf

ROOTS: dict[str, Callable[[Any], Any]] = {
    "rsqrt": ops.rsqrt,
    "one by a root": lambda x: 1 / ops.sqrt(x),
    "something by a root": lambda x: (x + 1) / ops.sqrt(x),
    "reciprocal of a root": lambda x: ops.reciprocal(ops.sqrt(x)),
    "a power": lambda x: ops.power(x, -0.5),
    "a root used twice": lambda x: 1 / tf.sqrt(x) + 2 / tf.sqrt(x),
    "a length": lambda x: 1 / ops.norm(x, axis=-1, keepdims=True) + 0 * x,
}


class Called(keras.layers.Layer):
    def __init__(self, called: Callable[[Any], Any], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.called = called

    def call(self, x: Any) -> Any:
        return self.called(x)


def model_of(*layers: Any, shape: tuple[int, ...] = (6,)) -> Any:
    frame = keras.Input(shape)
    x = frame
    for layer in layers:
        x = layer(x)
    return keras.Model(frame, x)


def answer_of(data: bytes, x: np.ndarray) -> np.ndarray:
    graph = read_graph(data)
    signature = graph.signature("serving_default")
    rows: np.ndarray = real_values(
        signature.outputs[0], run_frames("litert", graph, {signature.inputs[0].name: x})[signature.outputs[0].name]
    )
    return rows


@pytest.mark.parametrize("form", ROOTS)
def test_the_reciprocal_root_of_zero_is_large_and_no_nan(form: str) -> None:
    model = model_of(Called(lambda x: ops.minimum(ROOTS[form](x), 50.0)))
    x = np.array([[0.0, 1.0, 4.0, 1e-30, 1e30, 0.25], [0.0] * 6], np.float32)
    data = to_tflite(model, RECIPES["float32"], input_dtype="float32")
    found = answer_of(data, x)
    logits = np.minimum(np.asarray(ROOTS[form](x)), 50.0)
    want = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, want / want.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_normalisation_has_an_epsilon_and_stays_as_it_is(recipe: str) -> None:
    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    layers = keras.layers.LayerNormalization(), keras.layers.BatchNormalization()
    data = to_tflite(model_of(*layers), RECIPES[recipe], input_dtype="float32", representative=x)
    assert "RSQRT" in read_graph(data).ops
    assert "SQRT" not in read_graph(data).ops


def pictures() -> tuple[Any, np.ndarray, np.ndarray]:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = model_of(
        layers.Rescaling(1 / 255), layers.Conv2D(8, 3, use_bias=False, activation="relu", name="first"),
        layers.GlobalAveragePooling2D(), layers.UnitNormalization(), layers.Dense(4, name="last"),
        shape=(12, 12, 1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (80, 12, 12, 1), np.uint8)
    return model, x, np.asarray(model(x.astype(np.float32))).argmax(axis=1)


@pytest.mark.parametrize("recipe", ["float32", "float16", "dynamic-int8", "int8"])
def test_a_covered_lens_gets_an_answer(recipe: str) -> None:
    model, x, y = pictures()
    data = to_tflite(model, RECIPES[recipe], representative=x[:40])
    reference = make_reference(model, x[40:], y[40:])
    assert np.isfinite(reference.corner_answers["probabilities"]).all()
    check_parity(measure_parity(reference, RECIPES[recipe], data))
    black = answer_of(data, next(iter(reference.corners.values())))[0]
    assert np.abs(black - reference.corner_answers["probabilities"][0]).max() < 0.02


def test_the_corner_catches_a_root_without_its_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = pictures()
    monkeypatch.setattr("export.convert.traced.part_roots", lambda nodes: None)
    data = to_tflite(model, RECIPES["float32"])
    with pytest.raises(VerifyError, match="NaN or Inf as an answer to a frame of the least values"):
        check_parity(measure_parity(make_reference(model, x, y), RECIPES["float32"], data))


def test_layers_of_an_8_bit_file_are_told_and_kept_though_its_roots_stay_whole(tmp_path: Path) -> None:
    model, x, y = pictures()
    recipes = ["float32", "dynamic-int8", "int8"]
    frames: dict[str, Any] = {"representative": x[:40], "x_test": x[40:], "y_test": y[40:], "labels": list("abcd")}
    report = export_model(model, tmp_path / "b", **frames, recipes=recipes, keep_float=["last"])
    assert [variant.recipe for variant in report.variants] == recipes
    assert "first" in {error.layer for error in report.variants[2].layers.errors}


def test_a_file_that_a_covered_lens_stops_is_told_and_no_other_is_lost(tmp_path: Path) -> None:
    """8 bits make 0 of a small number, and LiteRT refuses to divide by it."""
    keras.utils.set_random_seed(3)
    model = model_of(
        keras.layers.Rescaling(1 / 255),
        Called(lambda x: x / (ops.mean(x, axis=(1, 2), keepdims=True) + 1e-3), name="brightness"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
        shape=(6, 6, 1),
    )
    x = np.random.default_rng(0).integers(0, 256, (80, 6, 6, 1), np.uint8)
    frames: dict[str, Any] = {"representative": x[:40], "x_test": x[40:], "labels": list("abcd")}
    y = np.asarray(model(x[40:].astype(np.float32))).argmax(axis=1)
    report = export_model(model, tmp_path / "b", **frames, y_test=y, recipes=["float32", "int8"])
    assert [variant.recipe for variant in report.variants] == ["float32"]
    (unmade,) = report.unmade
    assert "a frame of the least values" in unmade.reason
    assert "brightness" in f"{unmade.reason} {unmade.advice}"
