"""Inputs and outputs as they are: tokens, floats with a range, one unit for two classes, no classes, batches."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import export_model, verify_bundle
from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.model.ends import OUTPUT
from export.model.forms import InputForms
from export.model.frames import frames_for
from export.model.serving import SIGNATURE, describe, predict
from export.runtimes import real_values, run_frames
from export.tflite.graph import read_graph
from export.tflite.metadata import read_metadata
from export.variants.forecast import check_exportable
from export.verify.measured import make_reference, measure_parity
from fl_mobile.errors import ExportError, FlMobileError

pytestmark = pytest.mark.tf

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
FLOATS = RNG.random((40, 8, 8, 1)).astype(np.float32)
TOKENS = RNG.integers(0, 30, (40, 6)).astype(np.int32)
TWO, FIVE = RNG.integers(0, 2, 40), RNG.integers(0, 5, 40)


def net(*layers: Any, shape: tuple[int, ...] = (8, 8, 1), dtype: str = "float32") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input(shape, dtype=dtype), *layers])


def tokens() -> Any:
    from keras import layers

    pool = layers.GlobalAveragePooling1D()
    return net(layers.Embedding(30, 8), pool, layers.Dense(5), shape=(6,), dtype="int32")


def one_unit(activation: str | None) -> Any:
    from keras import layers

    return net(layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(1, activation=activation))


def on_floats() -> Any:
    from keras import layers

    return net(layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(5))


def segmentation() -> Any:
    from keras import layers

    return net(
        layers.Rescaling(1 / 255), layers.Conv2D(4, 3, padding="same"), layers.Conv2D(3, 1, activation="softmax")
    )


def autoencoder() -> Any:
    from keras import layers

    return net(layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(8, activation="relu"), layers.Dense(64))


CASES: dict[str, tuple[Any, np.ndarray, np.ndarray | None, InputForms, int, str, str]] = {
    # name → model, frames, classes, form, batch, dtype in the file, head
    "tokens": (tokens, TOKENS, FIVE, None, 1, "int32", "logits"),
    "one-sigmoid": (lambda: one_unit("sigmoid"), PICTURES, TWO, None, 1, "uint8", "one-sigmoid"),
    "one-logit": (lambda: one_unit(None), PICTURES, TWO, None, 1, "uint8", "one-logit"),
    "floats": (on_floats, FLOATS, FIVE, "float32:0..1", 1, "float32", "logits"),
    "segmentation": (segmentation, PICTURES, None, None, 1, "uint8", "softmax"),
    "autoencoder": (autoencoder, PICTURES, None, None, 1, "uint8", "values"),
    "batch": (on_floats, FLOATS, FIVE, "float32", 3, "float32", "logits"),
}


@pytest.mark.sample(r"float32-(one-logit|one-sigmoid|tokens)|int8-.*")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_the_artifact_answers_as_keras(case: str, recipe: str) -> None:
    _, x, y, form, batch, dtype, head = CASES[case]
    model = model_of(case)
    serving = describe(model, form, classes=y is not None, batch=batch)
    assert (serving.inputs[0].dtype, serving.outputs[0].head, serving.batch) == (dtype, head, batch)
    artifact = exported(case, recipe)
    entry = artifact.signature(SIGNATURE).inputs[0]
    assert (entry.dtype, entry.shape) == (dtype, (batch, *x.shape[1:]))
    expected = predict(model, serving, frames_for(serving, x, "frames"))[OUTPUT]
    (end,) = artifact.signature(SIGNATURE).outputs
    rows = real_values(end, run_frames("litert", artifact, {serving.entry.name: x})[OUTPUT])
    assert rows.shape == expected.shape
    np.testing.assert_allclose(rows, expected, atol=1e-5 if recipe == "float32" else 0.1)
    if y is not None:
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=0.03)


@cache
def model_of(case: str) -> Any:
    return CASES[case][0]()


def exported(case: str, recipe: str) -> Any:
    from export.convert.saved import saved_models
    from export.convert.to_tflite import make_artifact
    from export.model.serving import described

    _, x, y, form, batch, _, _ = CASES[case]
    found = described(model_of(case), form, classes=y is not None, batch=batch)
    with saved_models(found) as saved:
        return make_artifact(saved, RECIPES[recipe], frames_for(found.serving, x, "frames"))


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_unit_answers_both_classes_in_label_order(activation: str | None) -> None:
    model = one_unit(activation)
    own = np.asarray(model(PICTURES.astype(np.float32)))[:, 0]
    second = own if activation else 1 / (1 + np.exp(-own.astype(np.float64)))
    reference = make_reference(model, PICTURES, TWO)
    np.testing.assert_allclose(reference.answers[OUTPUT][:, 1], second, atol=1e-6)
    assert reference.accuracy == pytest.approx(float(((second > 0.5) == TWO).mean()))
    parity = measure_parity(reference, RECIPES["float32"], to_tflite(model, RECIPES["float32"]))
    assert parity.failures == ()


def test_a_bundle_without_classes_is_proven_by_its_answers_alone(tmp_path: Path) -> None:
    model, out = autoencoder(), tmp_path / "out"
    report = export_model(
        model, out, recipes=["float32"], labels=None, representative=None, x_test=PICTURES, y_test=None, provenance={}
    )
    assert (report.keras_accuracy, report.labels, report.variants[0].parity.accuracy) == (None, {}, None)
    proof = verify_bundle(out, model=model, runtimes=["litert"])
    assert proof.replays[0].max_abs_diff == 0
    assert "| – |" in (out / "report.md").read_text(encoding="utf-8")
    assert json.loads((out / "report.json").read_text())["held_out"]["keras_accuracy"] is None


def test_a_declared_range_is_kept_and_stands_in_the_metadata(tmp_path: Path) -> None:
    export_model(
        on_floats(),
        tmp_path / "out",
        recipes=["float32"],
        labels=list("abcde"),
        representative=None,
        x_test=FLOATS,
        y_test=FIVE,
        provenance={},
        input_dtype="float32:0..1",
    )
    data = (tmp_path / "out" / "float32.tflite").read_bytes()
    assert read_metadata(data).inputs == ("image",)
    from export.tflite.attach import detach
    from export.tflite.metadata_schema import decode

    (entry,) = decode(detach(data).metadata)["subgraph_metadata"][0]["input_tensor_metadata"]
    assert entry["stats"] == {"max": [1.0], "min": [0.0]}
    assert read_graph(data).signature(SIGNATURE).inputs[0].dtype == "float32"


MISTAKES: dict[str, tuple[Any, np.ndarray, InputForms, str]] = {
    "out-of-range": (on_floats, FLOATS * 2, "float32:0..1", "expected 0 to 1 as declared, got 0.* to"),
    "half-tokens": (tokens, TOKENS + 0.5, None, r"expected whole numbers \(int32\)"),
    "no-range": (on_floats, FLOATS, "float32:1..0", "expected a range such as 'float32:0..1'"),
    "nan-range": (on_floats, FLOATS, "float32:nan..1", "expected a range such as 'float32:0..1'"),
    "range-of-pixels": (on_floats, FLOATS, "uint8:0..255", "expected a range such as 'float32:0..1'"),
    "unknown-form": (on_floats, FLOATS, "float", "input_dtype must be 'uint8'"),
    "floats-for-tokens": (tokens, TOKENS, "float32", "takes int32 in Keras"),
    "normalised": (on_floats, FLOATS, None, "expected raw pixels.*--input float32"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_refused(mistake: str) -> None:
    make, x, form, message = MISTAKES[mistake]
    with pytest.raises(FlMobileError, match=message):
        frames_for(describe(make(), form), x, "frames")


def test_what_export_will_refuse_is_known_from_first_weights() -> None:
    import keras
    import tensorflow as tf

    layers = keras.layers
    lstm = net(layers.LSTM(8), layers.Dense(5), shape=(300, 4))
    rows = RNG.random((8, 300, 4)).astype(np.float32)
    (skipped,) = check_exportable(lstm, ["float32", "dynamic-int8", "int8"], examples=rows)
    assert (skipped.recipe, skipped.outcome) == ("int8", "skipped")
    assert "recurrent layers of Keras are unrolled, up to 256 steps" in skipped.reason
    with pytest.raises(ExportError, match="int8 skipped: it holds While"):
        check_exportable(lstm, ["int8"], examples=rows)

    short = net(layers.LSTM(8), layers.Dense(5), shape=(6, 4))
    assert check_exportable(short, ["dynamic-int8", "int8"], examples=rows[:, :6]) == ()

    class Spectrum(layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.linalg.svd(x[..., 0], compute_uv=False)

    strange = net(Spectrum(name="spectrum"), layers.Dense(5))
    with pytest.raises(ExportError, match=r"float32 failed: .*Svd \(layer 'spectrum'\)"):
        check_exportable(strange, ["float32"], examples=PICTURES[:4])
    (calibrated,) = check_exportable(tokens(), ["int8", "int16x8"], examples=TOKENS[:8])
    assert "int16 activations cannot be calibrated beside int32 inputs" in calibrated.reason
    (untunable,) = check_exportable(tokens(), ["float32", "qat-int8"], examples=TOKENS[:8])
    assert (untunable.recipe, untunable.outcome) == ("qat-int8", "skipped")
    assert check_exportable(on_floats(), ["float32", "int8"], examples=FLOATS[:8], input_dtype="float32") == ()
