"""Models whose layers raise in the middle of a step, where no check before round 1 can see it coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BRIGHT = 22.0
"""Pixels of a digit, 0 to 1, that add up to more are too much; about one in ten has so many."""


def asserts_in_training() -> Any:
    """An assertion of TensorFlow that fails on some devices' examples."""
    return _model(lambda x, training: _asserted(x) if training else x)


def asserts_in_evaluation() -> Any:
    """The same on what the server holds out."""
    return _model(lambda x, training: x if training else _asserted(x))


def raises_in_training() -> Any:
    """A function of Python in the graph, which asks how much is too much whenever it runs."""
    return _model(lambda x, training: _raising(x) if training else x)


def raises_in_evaluation() -> Any:
    """The same outside training."""
    return _model(lambda x, training: x if training else _raising(x))


def unroundable() -> Any:
    """Channels of sizes that no 8-bit scale holds at once: what int8 makes of it, LiteRT refuses after training."""
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(1)
    sizes = 10 ** np.linspace(-6, 6, 16)
    return keras.Sequential(
        [
            *(layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(16, "relu")),
            *(layers.Rescaling(sizes.tolist()), layers.ReLU(), layers.Rescaling((1 / sizes).tolist())),
            layers.Dense(10, name="out"),
        ]
    )


def words() -> Any:
    """An embedding of 40 tokens."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            layers.Input((6,), dtype="int32"),
            layers.Embedding(40, 4, name="words"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="out"),
        ]
    )


def _asserted(x: Any) -> Any:
    import tensorflow as tf

    fine = tf.reduce_all(tf.reduce_sum(x, axis=[1, 2, 3]) < BRIGHT)
    with tf.control_dependencies([tf.debugging.Assert(fine, ["too bright"])]):
        return tf.identity(x)


def _raising(x: Any) -> Any:
    import tensorflow as tf

    out = tf.numpy_function(_looked_at, [x], tf.float32)
    out.set_shape(x.shape)
    return tf.stop_gradient(out)


def _looked_at(x: Any) -> Any:
    if x.sum(axis=(1, 2, 3)).max() > BRIGHT:
        raise ZeroDivisionError("by nothing\nat all")
    return x


def _model(call: Callable[[Any, bool], Any]) -> Any:
    import keras
    from keras import layers

    class Brittle(layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            return call(x, training)

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            *(layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), Brittle(name="brittle"), layers.Flatten()),
            layers.Dense(10, name="out"),
        ]
    )
