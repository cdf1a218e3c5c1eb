"""Parity must turn red when the artifact is not the model, and name the measure."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest

from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.model.ends import OUTPUT
from export.model.serving import describe, predict
from export.runtimes import open_session
from export.tflite.graph import read_graph
from export.verify.measured import make_reference, measure_parity, verify_parity
from fl_mobile.errors import VerifyError
from tests.export.convert.topologies import Digits

pytestmark = pytest.mark.tf


def overwrite_buffers(data: bytes, change: Any, least: int = 1_000) -> bytes:
    """Returns ``data`` with ``change`` applied to every constant of ``least`` bytes or more."""
    from ai_edge_litert import schema_py_generated as schema

    damaged = bytearray(data)
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength() >= least:
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            damaged[start : start + buffer.DataLength()] = change(bytes(buffer.DataAsNumpy()))
    return bytes(damaged)


@pytest.fixture(scope="module")
def artifacts(model: Any, data: Digits) -> dict[str, bytes]:
    return {name: to_tflite(model, RECIPES[name], representative=data.x_train[:100]) for name in ("float32", "int8")}


@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_good_artifact_passes(recipe: str, model: Any, data: Digits, artifacts: dict[str, bytes]) -> None:
    parity = verify_parity(model, artifacts[recipe], data.x_test, data.y_test, recipe=RECIPES[recipe])
    assert parity.samples == 300
    assert len(parity.outputs[0].class_accuracy_diff) == 10
    assert parity.failures == ()


@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_catches_a_zeroed_layer(recipe: str, model: Any, data: Digits, artifacts: dict[str, bytes]) -> None:
    damaged = overwrite_buffers(artifacts[recipe], lambda b: bytes(len(b)))
    with pytest.raises(VerifyError, match=r"max probability difference.*accuracy of class"):
        verify_parity(model, damaged, data.x_test, data.y_test, recipe=RECIPES[recipe])


def test_catches_nan_weights(model: Any, data: Digits, artifacts: dict[str, bytes]) -> None:
    damaged = overwrite_buffers(artifacts["float32"], lambda b: np.full(len(b) // 4, np.nan, "<f4").tobytes())
    with pytest.raises(VerifyError, match="max probability difference nan"):
        verify_parity(model, damaged, data.x_test, data.y_test, recipe=RECIPES["float32"])


@pytest.mark.sample(r"float16|int8")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_catches_shuffled_outputs(recipe: Any, model: Any, data: Digits) -> None:
    import keras

    shuffled = keras.models.clone_model(model)
    kernel, bias = (np.asarray(w) for w in model.weights[-2:])
    shuffled.set_weights([*map(np.asarray, model.weights[:-2]), kernel[:, ::-1], bias[::-1]])
    artifact = to_tflite(shuffled, recipe, representative=data.x_train[:50])
    with pytest.raises(VerifyError, match="first class differs on"):
        verify_parity(model, artifact, data.x_test, data.y_test, recipe=recipe)


@pytest.mark.sample(r"float32|int16x8")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_catches_swapped_normalisation(recipe: Any, model: Any, data: Digits) -> None:
    import keras

    def swap(layer: Any) -> Any:
        rescaling = isinstance(layer, keras.layers.Rescaling)
        return keras.layers.Rescaling(1 / 127.5, -1) if rescaling else layer.__class__.from_config(layer.get_config())

    swapped = keras.models.clone_model(model, clone_function=swap)
    swapped.set_weights(model.get_weights())
    artifact = to_tflite(swapped, recipe, representative=data.x_train[:50])
    with pytest.raises(VerifyError, match="mean probability difference"):
        verify_parity(model, artifact, data.x_test, data.y_test, recipe=recipe)


def test_catches_a_wrong_kernel_of_few_weights(model: Any, data: Digits, artifacts: dict[str, bytes]) -> None:
    """The first convolution has 108 of 4,000 weights; turning its filters round is a small change."""

    def turn(stored: bytes) -> bytes:
        return stored[::-1] if len(stored) == 108 else stored

    damaged = overwrite_buffers(artifacts["int8"], turn, least=100)
    assert damaged != artifacts["int8"]
    with pytest.raises(VerifyError):
        verify_parity(model, damaged, data.x_test, data.y_test, recipe=RECIPES["int8"])


def test_catches_lost_weights(model: Any, data: Digits) -> None:
    """The trap itself: a Keras 3 model in a bare ``tf.Module`` converts without an error and without weights."""
    import tensorflow as tf

    class Bare(tf.Module):
        def __init__(self) -> None:
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1), tf.uint8, name="image")])
        def serve(self, image: Any) -> Any:
            return {"probabilities": tf.nn.softmax(self.model(tf.cast(image, tf.float32), training=False))}

    bare = Bare()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(bare, folder, signatures={"serving_default": bare.serve})
        artifact = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    assert read_graph(artifact).weights < describe(model).kernel_weights
    with pytest.raises(VerifyError):
        verify_parity(model, artifact, data.x_test, data.y_test, recipe=RECIPES["float32"])


def test_refuses_an_operation_no_runtime_has(data: Digits) -> None:
    import keras
    import tensorflow as tf

    layers = keras.layers

    class Spectrum(layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.linalg.svd(x[..., 0], compute_uv=False)

    strange = keras.Sequential([layers.Input((8, 8, 1)), Spectrum(), layers.Dense(10)])
    archive = keras.export.ExportArchive()
    archive.track(strange)
    archive.add_endpoint(
        "serving_default",
        lambda image: {"probabilities": strange(tf.cast(image, tf.float32))},
        input_signature=[tf.TensorSpec((1, 8, 8, 1), tf.uint8, name="image")],
    )
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True
        smuggled = converter.convert()
    assert read_graph(smuggled).foreign_ops == ("CUSTOM:Svd",)
    with pytest.raises(VerifyError, match="CUSTOM:Svd, which no plain runtime has"):
        open_session("litert", smuggled)


def test_refuses_a_renamed_signature(artifacts: dict[str, bytes]) -> None:
    renamed = artifacts["float32"].replace(b"serving_default\0", b"serving_defaulT\0")
    with pytest.raises(VerifyError, match=r"no signature 'serving_default' \(found: serving_defaulT\)"):
        open_session("litert", renamed)


def test_one_flip_is_forgiven_and_two_are_not(model: Any, data: Digits, artifacts: dict[str, bytes]) -> None:
    from dataclasses import replace

    reference = make_reference(model, data.x_test, data.y_test)
    for flips, passes in ((1, True), (2, False)):
        rows = reference.answers[OUTPUT].copy()
        rows[:flips] = np.roll(rows[:flips], 1, axis=1)
        parity = measure_parity(replace(reference, answers={OUTPUT: rows}), RECIPES["float32"], artifacts["float32"])
        assert any("first class differs" in failure for failure in parity.failures) != passes


@pytest.mark.parametrize("name", ["sequential-logits", "functional-batchnorm", "subclassed", "features-mlp"])
def test_head_is_found(name: str, model_of: Any, data: Digits) -> None:
    heads = {"sequential-logits": "logits", "features-mlp": "sigmoid"}
    assert describe(model_of(name)).end.head == heads.get(name, "softmax")


def test_softmax_written_by_hand_is_not_applied_twice(data: Digits) -> None:
    import keras

    def by_hand(x: Any) -> Any:
        powers = keras.ops.exp(x - keras.ops.max(x, axis=-1, keepdims=True))
        return powers / keras.ops.sum(powers, axis=-1, keepdims=True)

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10, activation=by_hand)]
    )
    serving = describe(model)
    assert serving.end.head == "softmax"
    answer = np.asarray(model(data.x_test[:5].astype(np.float32)))
    assert np.allclose(predict(model, serving, {"image": data.x_test[:5]})[OUTPUT], answer)
