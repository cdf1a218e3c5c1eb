"""Kinds of layers that converters and device programs get wrong in silence: right here, or refused by name.

`build_training_program` compares with Keras itself, so a model that is built is right.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from export.training import open_session
from export.training.convert import convert_module
from export.training.program import build_training_program
from export.training.proof.operations import lost_operations
from fl_mobile.errors import FlMobileError
from fl_mobile.models import keras_bridge

pytestmark = pytest.mark.tf
L = keras.layers


def model_of(*layers: Any, shape: tuple[int, ...] = (5,)) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *layers], name="kinds")


def test_activations_right_behind_a_product_stay() -> None:
    """TensorFlow 2.21's converter loses them: in front of a variable kernel, behind a Reshape, on sequences."""
    plain = [L.Dense(6, name, use_bias=False) for name in ("relu", "relu6", "selu", "mish", "leaky_relu")]
    behind = [L.Dense(6, use_bias=False), L.Reshape((2, 3)), L.ReLU(max_value=1.0)]
    on_sequences = [L.Dense(4, "relu", use_bias=False), L.EinsumDense("abc,cd->abd", (2, 4), activation="relu6")]
    made = build_training_program(model_of(*plain, *behind, *on_sequences, L.Flatten(), L.Dense(3)), batch_size=4)
    assert len(made.proof.compared) == 3


def test_an_activation_less_in_the_file_is_counted() -> None:
    """The count knows nothing of how it was lost: fused, folded or forgotten."""

    def signature(body: Any) -> Any:
        return tf.function(lambda x: {"y": body(x)}).get_concrete_function(tf.TensorSpec((2, 3), name="x"))

    full, less = signature(lambda x: tf.nn.relu(x) + tf.tanh(x)), signature(lambda x: tf.tanh(x) + x)
    assert lost_operations({"f": full}, convert_module(tf.Module(), {"f": full}, "full")) == []
    assert lost_operations({"f": full}, convert_module(tf.Module(), {"f": less}, "less")) == ["f has 0 RELU of 1"]


def test_masks_constraints_and_regularisers_are_part_of_the_step() -> None:
    masked = [
        L.Masking(-1.0),
        L.LSTM(4, return_sequences=True, recurrent_constraint="unit_norm"),
        L.BatchNormalization(),
    ]
    limited = L.Dense(5, "relu", kernel_constraint=keras.constraints.MaxNorm(0.5), bias_constraint="non_neg")
    costly = L.Dense(4, "relu", kernel_regularizer="l1", activity_regularizer="l2")
    layers = [*masked, L.GlobalAveragePooling1D(), limited, costly, L.Dense(3)]
    build_training_program(model_of(*layers, shape=(4, 3)), batch_size=4, optimizer="momentum")


def test_gradients_that_authors_defined_are_honoured() -> None:
    @tf.custom_gradient
    def sign(x: Any) -> Any:
        return tf.sign(x), lambda g: g

    @tf.custom_gradient
    def turned(x: Any) -> Any:
        return tf.identity(x), lambda g: -0.5 * g

    class Binary(L.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

        def call(self, x: Any) -> Any:
            return tf.matmul(x, sign(self.kernel))

    class Turned(L.Layer):
        def call(self, x: Any) -> Any:
            return tf.function(turned)(x)

    build_training_program(model_of(L.Dense(4, "silu"), Turned(), Binary(), L.Dense(3)), batch_size=4)


class DropPath(L.Layer):
    """Stochastic depth as KerasCV has it: a branch of an example is kept or not."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.generator = rate, keras.random.SeedGenerator(1)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        shape = (keras.ops.shape(x)[0], *[1] * (len(x.shape) - 1))
        drawn = keras.random.uniform(shape, seed=self.generator)
        return x / (1 - self.rate) * keras.ops.floor(1 - self.rate + drawn)


class StochasticDepth(DropPath):
    """The same in TensorFlow's words, as its examples have it."""

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        shape = (tf.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return tf.math.divide(x, 1 - self.rate) * tf.floor(1 - self.rate + tf.random.uniform(shape, 0, 1))


class Shifted(L.Layer):
    """Whole numbers: every example's columns are turned by a drawn step."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + tf.cast(tf.random.uniform((tf.shape(x)[0], 1), 0, 3, tf.int32), x.dtype) if training else x


RANDOM: dict[str, tuple[tuple[int, ...], Any]] = {
    "vectors": (
        (6,),
        lambda: [
            *(L.GaussianNoise(0.3), L.Dense(6, "tanh"), L.GaussianDropout(0.2), L.AlphaDropout(0.3), Shifted()),
            *(L.Dense(6, "silu"), DropPath(0.4), StochasticDepth(0.4), L.Dropout(0.2), L.GaussianNoise(0.1)),
        ],
    ),
    "sequences": (
        (4, 3),
        lambda: [
            *(L.GaussianNoise(0.3), L.GRU(4, return_sequences=True, dropout=0.3, recurrent_dropout=0.2)),
            *(L.SpatialDropout1D(0.3), L.AlphaDropout(0.2, noise_shape=(None, 1, 4)), DropPath(0.3)),
            *(L.LSTM(3, recurrent_dropout=0.4), L.GaussianNoise(0.1)),
        ],
    ),
    "pictures": (
        (8, 9, 2),
        lambda: [
            *(L.RandomFlip(), L.RandomRotation(0.2), L.RandomZoom(0.3, 0.2), L.RandomCrop(7, 6)),
            *(L.RandomTranslation(0.3, 0.2, fill_mode="constant"), L.RandomContrast(0.4, (-3.0, 3.0))),
            *(L.RandomBrightness(0.3, (-3.0, 3.0)), L.RandomShear(0.3, 0.2), L.Conv2D(3, 2), L.SpatialDropout2D(0.3)),
            *(DropPath(0.2), L.GlobalAveragePooling2D()),
        ],
    ),
}


@pytest.mark.sample(r"(?!sequences).*")
@pytest.mark.parametrize("kind", RANDOM)
def test_random_layers_draw_on_phones_what_they_draw_in_keras(kind: str) -> None:
    """The proof's reference draws with NumPy, so the program's numbers are the formula's; short batches included."""
    shape, layers = RANDOM[kind]
    model = model_of(*layers(), L.Dense(3), shape=shape)
    made = build_training_program(model, batch_size=4, optimizer="momentum")
    start, rng = keras_bridge.read(model), np.random.default_rng(0)
    x, y = rng.standard_normal((4, *shape)).astype(np.float32), np.arange(4) % 3
    session = open_session(made.tflite, made.contract)

    def loss(seed: int, steps: int = 1) -> float:
        session.set_weights(start)
        return [session.train(x, y, learning_rate=0.0, seed=seed)[0] for _ in range(steps)][-1]

    assert loss(1) == loss(1)
    assert len({loss(1), loss(2), loss(1, steps=2)}) == 3, "drawn by seed and by step"


class Mean(keras.regularizers.Regularizer):
    def __call__(self, x: Any) -> Any:
        return 0.1 * keras.ops.mean(x * x)


class Spectral(keras.constraints.Constraint):
    def __call__(self, w: Any) -> Any:
        return w / tf.linalg.svd(w, compute_uv=False)[0]


class Branch(L.Layer):
    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        return x if tf.reduce_sum(x) > 0 else -x


class Again(L.Layer):
    def call(self, x: Any) -> Any:
        return tf.recompute_grad(lambda y: tf.nn.relu(y) * 2.0)(x)


class Always(L.Layer):
    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x))


class Gamma(L.Layer):
    def call(self, x: Any, training: bool = False) -> Any:
        return x * keras.random.gamma((1,), 2.0) if training else x


class Root(L.Layer):
    def call(self, x: Any) -> Any:
        return tf.sqrt(x - x)


REFUSED: dict[str, tuple[Any, str]] = {
    "half precision": (lambda: L.Dense(4, dtype="mixed_float16", name="odd"), "layer 'odd'.*float16.*float32"),
    "a cost per batch": (lambda: L.Dense(4, activity_regularizer=Mean(), name="odd"), "layer 'odd'.*rows of zeros"),
    "a constraint": (lambda: L.Dense(4, kernel_constraint=Spectral(), name="odd"), "layer.*'odd'.*(Svd|builtin)"),
    "a branch": (lambda: Branch(name="odd"), r"kinds' in layer 'odd' \(Branch\) .*no branches on data"),
    "recompute_grad": (lambda: Again(name="odd"), "layer 'odd'.*recompute_grad"),
    "numbers outside training": (lambda: Always(name="odd"), r"layer 'odd' \(Always\) draws.*outside training"),
    "other numbers": (lambda: Gamma(name="odd"), "layer 'odd'.*Gamma.*random numbers.*keras"),
    "no finite gradient": (lambda: Root(name="odd"), "layer 'dense.*': its gradient is no finite number.*root of 0"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_phone_cannot_train_is_refused_by_layer(kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(FlMobileError, match=words) as told:
        build_training_program(model_of(L.Dense(4), make(), L.Dense(3)), batch_size=4)
    assert "\n" not in str(told.value)
