"""Kinds of layers that converters and device programs get wrong in silence: right here, or refused by name.

`build_training_program` compares with Keras itself, so a model that is built is right.
"""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

from export.training.convert import convert_module
from export.training.program import build_training_program
from export.training.proof.operations import lost_operations
from fl_mobile.errors import FlMobileError

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


class Depth(L.Layer):
    def call(self, x: Any, training: bool = False) -> Any:
        return x * keras.random.uniform((1,)) if training else x


class Root(L.Layer):
    def call(self, x: Any) -> Any:
        return tf.sqrt(x - x)


REFUSED: dict[str, tuple[Any, str]] = {
    "half precision": (lambda: L.Dense(4, dtype="mixed_float16", name="odd"), "layer 'odd'.*float16.*float32"),
    "a cost per batch": (lambda: L.Dense(4, activity_regularizer=Mean(), name="odd"), "layer 'odd'.*rows of zeros"),
    "a constraint": (lambda: L.Dense(4, kernel_constraint=Spectral(), name="odd"), "layer.*'odd'.*(Svd|builtin)"),
    "a branch": (lambda: Branch(name="odd"), "kinds.*no branches on data.*Branch"),
    "recompute_grad": (lambda: Again(name="odd"), "layer 'odd'.*recompute_grad"),
    "stochastic depth": (lambda: Depth(name="odd"), "layer 'odd'.*random.*Dropout"),
    "noise": (lambda: L.GaussianNoise(0.1, name="odd"), "layer 'odd'.*Dropout"),
    "no finite gradient": (lambda: Root(name="odd"), "no finite number"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_phone_cannot_train_is_refused_by_layer(kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(FlMobileError, match=words) as told:
        build_training_program(model_of(L.Dense(4), make(), L.Dense(3)), batch_size=4)
    assert "\n" not in str(told.value)
