"""Small trained Keras models of every shape users build, and the digits they were trained on.

They are really trained, because an artifact's class agreement means nothing on a model without an opinion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = 10
LABELS = [f"digit {number}" for number in range(CLASSES)]


@dataclass(frozen=True)
class Digits:
    """8×8 handwritten digits as ``uint8[n, 8, 8, 1]`` camera frames, split once."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits() -> Digits:
    """Returns scikit-learn's digits, 1,497 to train and 300 held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    y = data.target.astype(np.int64)
    order = np.random.default_rng(3).permutation(len(x))
    train, test = order[:-300], order[-300:]
    return Digits(x[train], y[train], x[test], y[test])


def sequential_logits() -> Any:
    """Conv, pool, dropout, dense; ends in logits."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(CLASSES),
        ],
        name="sequential_logits",
    )


def functional_batchnorm() -> Any:
    """Functional with a residual, batch normalisation, ``x/127.5 - 1`` and a softmax of its own."""
    import keras

    layers = keras.layers
    frame = layers.Input((8, 8, 1), name="camera")
    x = layers.Rescaling(1 / 127.5, -1)(frame)
    x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.Add()([x, layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(y))])
    x = layers.Flatten()(layers.Conv2D(16, 3, strides=2, activation="relu")(x))
    return keras.Model(frame, layers.Dense(CLASSES, activation="softmax")(x), name="functional_batchnorm")


def subclassed() -> Any:
    """Subclassed, built by a call, with its head inside a ``tf.function``."""
    import keras
    import tensorflow as tf

    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="subclassed")
            self.scale = keras.layers.Rescaling(1 / 255)
            self.conv = keras.layers.Conv2D(12, 3, activation="relu")
            self.drop = keras.layers.Dropout(0.1)
            self.flat = keras.layers.Flatten()
            self.head = keras.layers.Dense(CLASSES, activation="softmax")

        @tf.function
        def classify(self, x: Any) -> Any:
            return self.head(self.flat(x))

        def call(self, frame: Any, training: bool = False) -> Any:
            return self.classify(self.drop(self.conv(self.scale(frame)), training=training))

    model = Subclassed()
    model(np.zeros((1, 8, 8, 1), np.float32))
    return model


def branching() -> Any:
    """Subclassed with a branch that depends on the pixels; becomes ``IF``, which has no int8 kernel."""
    import keras
    import tensorflow as tf

    class Branching(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="branching")
            self.flat, self.head = keras.layers.Flatten(), keras.layers.Dense(10)

        @tf.function
        def classify(self, x: Any) -> Any:
            if tf.reduce_mean(x) > 0.3:
                return self.head(self.flat(x))
            return self.head(self.flat(-x))

        def call(self, frame: Any) -> Any:
            return self.classify(frame / 255)

    model = Branching()
    model(np.zeros((1, 8, 8, 1), np.float32))
    return model


def shared_layers() -> Any:
    """One convolution used twice, and a nested model."""
    import keras

    layers = keras.layers
    frame = layers.Input((8, 8, 1))
    conv = layers.Conv2D(8, 3, padding="same", activation="relu")
    x = layers.Concatenate()([layers.Rescaling(1 / 255)(frame)] * 8)
    x = layers.MaxPooling2D()(conv(conv(x)))
    inner = keras.Sequential([layers.Input((4, 4, 8)), layers.Flatten(), layers.Dense(CLASSES)])
    return keras.Model(frame, inner(x), name="shared_layers")


def features_mlp() -> Any:
    """No image: a float vector of 64 features with two-sided values, sigmoid outputs."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((64,), name="pixels"),
            layers.Dense(32, activation="tanh"),
            layers.Dense(CLASSES, activation="sigmoid"),
        ],
        name="features_mlp",
    )


TOPOLOGIES: dict[str, Callable[[], Any]] = {
    "sequential-logits": sequential_logits,
    "functional-batchnorm": functional_batchnorm,
    "subclassed": subclassed,
    "shared-layers": shared_layers,
    "features-mlp": features_mlp,
}


def inputs_for(name: str, frames: np.ndarray) -> np.ndarray:
    """Returns ``frames`` as the topology called ``name`` takes them."""
    return frames.reshape(len(frames), 64).astype(np.float32) / 64 - 2 if name == "features-mlp" else frames


def trained(name: str, data: Digits, epochs: int = 12) -> Any:
    """Returns the topology called ``name`` after a few epochs on the digits."""
    import keras

    keras.utils.set_random_seed(5)
    model = TOPOLOGIES[name]()
    logits = name in ("sequential-logits", "shared-layers")
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
    model.fit(inputs_for(name, data.x_train), data.y_train, batch_size=64, epochs=epochs, verbose=0)
    return model
