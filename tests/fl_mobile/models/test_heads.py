"""What a model's outputs are, for every way to write a head down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fl_mobile.errors import ModelError
from fl_mobile.models import keras_bridge
from fl_mobile.models.heads import head_of

pytestmark = pytest.mark.tf

X = np.random.default_rng(0).random((8, 5)).astype(np.float32)


def _dense(units: int, activation: Any = None, **options: Any) -> Callable[[Any, Any], Any]:
    return lambda keras, x: keras.layers.Dense(units, activation, **options)(x)


def _by_hand(keras: Any, x: Any) -> Any:
    e = keras.ops.exp(keras.layers.Dense(3)(x))
    return e / keras.ops.sum(e, axis=-1, keepdims=True)


def _mean_of_softmaxes(keras: Any, x: Any) -> Any:
    return keras.layers.Average()([keras.layers.Dense(3, "softmax")(x) for _ in range(2)])


def _half_precision(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("softmax", dtype="float16")(keras.layers.Dense(3)(x))


HEADS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "one logit": ("logits", _dense(1)),
    "one logit that starts at zero": ("logits", _dense(1, kernel_initializer="zeros")),
    "one logit without bias": ("logits", _dense(1, use_bias=False)),
    "logits that start at a third": ("logits", _dense(3)),
    "sigmoid": ("sigmoid", _dense(1, "sigmoid")),
    "sigmoids": ("sigmoid", _dense(3, "sigmoid")),
    "hard sigmoid": ("sigmoid", _dense(1, "hard_sigmoid")),
    "softmax": ("softmax", _dense(3, "softmax")),
    "softmax written out": ("softmax", _by_hand),
    "mean of two softmaxes": ("softmax", _mean_of_softmaxes),
    "log-softmax": ("logits", _dense(3, "log_softmax")),
    "relu": ("logits", _dense(3, "relu")),
    "softmax, then cast": ("softmax", _half_precision),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_read(name: str) -> None:
    import keras

    want, head = HEADS[name]
    if "third" in name:
        head = _dense(3, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(1 / 3))
    x = keras.Input((5,))
    model = keras.Model(x, head(keras, x))
    before = keras_bridge.read(model)
    assert head_of(model, X) == want
    after = keras_bridge.read(model)
    assert all(np.array_equal(before[path], after[path]) for path in before), "its weights are as they were"


def test_a_head_inside_a_function_is_seen() -> None:
    import keras
    import tensorflow as tf

    class Hidden(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.function(tf.nn.softmax)(x)

    x = keras.Input((5,))
    assert head_of(keras.Model(x, Hidden()(keras.layers.Dense(3)(x))), X) == "softmax"


@pytest.mark.filterwarnings("ignore:You are using a softmax")
def test_a_softmax_that_says_nothing_is_refused() -> None:
    import keras

    with pytest.raises(ModelError, match=r"always 1: use Activation\('sigmoid'\)"):
        head_of(keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, "softmax")]), X)


def test_several_outputs_and_maps_are_refused() -> None:
    import keras

    x = keras.Input((5,))
    with pytest.raises(ModelError, match=r"has 2 outputs .*model\.outputs\[0\]"):
        head_of(keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(2)(x)]), X)
    with pytest.raises(ModelError, match=r"\(None,\) .*end in a Dense layer"):
        head_of(keras.Model(x, keras.layers.Reshape(())(keras.layers.Dense(1)(x))), X)
    assert head_of(keras.Model(x, keras.layers.Reshape((4, 2))(keras.layers.Dense(8)(x))), X) == "logits"
