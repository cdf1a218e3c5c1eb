"""Every model row: its published size, the same weights and paths in every process, honest refusals."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_mobile.errors import ConfigError, ModelError
from fl_mobile.models import MODELS, build_model
from tests.fl_mobile.models.model_builds import build, digest

pytestmark = pytest.mark.tf

PARAMETERS = {  # (all, trainable), published or added up by hand from the layer sizes
    "smart-camera-cnn": (225_034, 225_034),
    "mlp": (784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10,) * 2,
    "logistic": (7_850, 7_850),
    "mobilenet-v2-head": (2_257_984 + 12_810, 12_810),
    "mobilenet-v2-0.35": (410_208 + 12_810, 396_128 + 12_810),
    "mobilenet-v1-0.25": (221_794 - 2_736, 213_072 + 514),  # MLPerf Tiny's VWW model less its biases before batch-norm
    "resnet-8": (78_666, 78_666 - 2 * (3 * 16 + 2 * 32 + 2 * 64)),
    "ds-cnn": (24_908, 24_908 - 2 * 9 * 64),
    "tanh-cnn": (8 * 8 * 16 + 16 + 4 * 4 * 16 * 32 + 32 + 4 * 4 * 32 * 32 + 32 + 32 * 10 + 10,) * 2,
    "tabular-mlp": (30 * 64 + 64 + 64 * 32 + 32 + 32 * 2 + 2,) * 2,
    "tiny-transformer": (
        97 * 32 + 3 * 32 * 32 + 32 + 4 * (32 * 32 + 32) + 2 * 64 + 32 * 64 + 64 + 64 * 32 + 32 + 32 * 97 + 97,
    )
    * 2,
    "tiny-unet": (
        9 * (8 + 8 * 16 + 16 * 32 + (32 + 16) * 16 + (16 + 8) * 8 + 2 * 8**2 + 2 * 16**2 + 32**2)
        + 2 * (8 + 16 + 32 + 16 + 8)
        + (8 * 11 + 11),
    )
    * 2,
    "autoencoder": (2 * 784 * 64 + 64 + 64 * 16 + 16 + 16 * 64 + 64 + 784,) * 2,
    "har-cnn": (5 * 6 * 32 + 32 + 5 * 32 * 64 + 64 + 5 * 64 * 64 + 64 + 64 * 6 + 6,) * 2,
    "char-gru": (97 * 8 + 3 * (8 * 128 + 128 * 128 + 2 * 128) + 128 * 97 + 97,) * 2,
    "next-word-lstm": (1001 * 32 + (32 + 32 + 1) * 3 * 128 + 128 * 32,) * 2,
    "text-classifier": (10_000 * 16 + 16 * 16 + 16 + 16 * 2 + 2,) * 2,
}


def high(row) -> int:
    """Returns what inputs are drawn below: tokens of a sequence are its classes."""
    return row.num_classes if row.task == "sequence" else 256


def count(variables) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.fixture(scope="module")
def built():
    return {name: build(name) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_the_published_ones(built, name):
    model = built[name]
    assert (count(model.weights), count(model.trainable_variables)) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_second_build_in_the_same_process_is_identical(built, name):
    assert digest(build(name)) == digest(built[name])
    paths = [v.path for v in built[name].variables]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", ["smart-camera-cnn", "mobilenet-v1-0.25", "text-classifier"])
def test_another_seed_gives_other_weights_on_the_same_paths(built, name):
    other = build(name, seed=1)
    assert [v.path for v in other.weights] == [v.path for v in built[name].weights]
    assert not np.array_equal(other.trainable_variables[0].numpy(), built[name].trainable_variables[0].numpy())


@pytest.mark.slow
def test_another_process_builds_the_same_bits(built):
    code = (
        "import json, keras; from tests.fl_mobile.models.model_builds import MODELS, build, digest\n"
        "keras.layers.Dense(3); keras.layers.Dense(3)\n"  # a process with another past
        "print(json.dumps({name: digest(build(name)) for name in reversed(MODELS)}))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs == {name: digest(model) for name, model in built.items()}


def answer_of(row):
    """Shape of the answer to one example: its task's positions, and a score for each class."""
    positions = {"sequence": row.input_shape, "segmentation": row.input_shape[:2]}
    return row.input_shape if row.task == "reconstruction" else (*positions.get(row.task, ()), row.num_classes)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_the_callers_input_and_gives_logits(built, name):
    row, rng = MODELS[name], np.random.default_rng(0)
    x = rng.integers(0, high(row), (3, *row.input_shape)).astype(np.float32)
    out = built[name](x, training=False).numpy()
    assert out.shape == (3, *answer_of(row))
    assert np.isfinite(out).all()
    assert row.from_logits
    assert not np.allclose(out.sum(axis=-1), 1)
    if row.input_dtype == "int32":
        assert np.array_equal(out, built[name](x.astype(np.int32), training=False).numpy())


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_reaches_every_trainable_tensor_and_no_frozen_one(name):
    import keras
    import tensorflow as tf

    row, rng = MODELS[name], np.random.default_rng(0)
    model = build(name)
    x = rng.integers(0, high(row), (8, *row.input_shape)).astype(np.float32)
    positions = answer_of(row)[:-1]
    y = np.broadcast_to((np.arange(8) % row.num_classes).reshape(8, *[1] * len(positions)), (8, *positions))
    before = [v.numpy() for v in model.non_trainable_weights]
    with tf.GradientTape() as tape:
        out = model(x, training=True)
        rebuilt = row.task == "reconstruction"
        of_classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        loss = keras.losses.MeanSquaredError()(x / 255, out) if rebuilt else of_classes(y, out)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        values = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(values).all(), variable.path
        assert values.any(), variable.path
    moved = [not np.array_equal(a, v.numpy()) for a, v in zip(before, model.non_trainable_weights, strict=True)]
    assert not any(moved) if name == "mobilenet-v2-head" else all(moved)  # batch-norm statistics


def test_only_the_head_of_mobilenet_v2_head_trains(built):
    model = built["mobilenet-v2-head"]
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]


@pytest.mark.parametrize(
    ("name", "application", "alpha"),
    [("mobilenet-v2-0.35", "MobileNetV2", 0.35), ("mobilenet-v1-0.25", "MobileNet", 0.25)],
)
def test_mobilenets_compute_what_keras_applications_does(built, name, application, alpha):
    import keras

    ours = built[name]
    theirs = getattr(keras.applications, application)((96, 96, 3), alpha=alpha, include_top=False, weights=None)
    theirs.set_weights(ours.get_weights()[:-2])
    x = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    wanted = theirs(x / 127.5 - 1, training=False).numpy().mean(axis=(1, 2))
    came = keras.Model(ours.input, ours.get_layer("pool").output)(x, training=False).numpy()
    assert (
        np.abs(came - wanted).max() < 1e-3 * np.abs(wanted).max()
    )  # random bases shrink their input: no absolute bound


def test_the_smart_camera_cnn_is_the_layers_of_the_literature(built):
    model = built["smart-camera-cnn"]
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "Rescaling",
        "Conv2D",
        "MaxPooling2D",
        "Conv2D",
        "MaxPooling2D",
        "Dropout",
        "Flatten",
        "Dense",
        "Dense",
    ]
    bright = model(np.full((1, 28, 28, 1), 255, np.float32), training=False)
    scaled = build("smart-camera-cnn", input_scale=1.0)(np.ones((1, 28, 28, 1), np.float32), training=False)
    assert np.allclose(bright, scaled, atol=1e-6)


def test_building_leaves_pythons_random_stream_alone():
    random.seed(5)
    wanted = random.random()
    random.seed(5)
    build("logistic")
    assert random.random() == wanted


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("smart-camera-cnn", {"input_shape": (8, 8, 1)}, "cannot be built for inputs"),
        ("smart-camera-cnn", {"input_shape": (20,)}, "cannot be built for inputs"),
        ("mobilenet-v2-head", {"input_shape": (28, 28, 1)}, "at least 32×32 pixels"),
        ("mobilenet-v2-0.35", {"input_shape": (96,)}, "cannot be built for inputs"),
        ("text-classifier", {"input_scale": 1 / 255}, "token numbers"),
        ("resnet-8", {"num_classes": 0}, "cannot be built for inputs"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(name, change, says):
    with pytest.raises(ModelError, match=says) as caught:
        build(name, **change)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'resnet-8'"):
        build_model("resnet8", input_shape=(4,), num_classes=2, input_scale=1.0, seed=0)


def test_the_table_is_readable_without_tensorflow():
    modules = "fl_mobile.models, device_sim.datasets, device_sim.client_data.partition"
    code = f"import sys, {modules}; print('keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
