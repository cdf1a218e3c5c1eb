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


def frozen_base() -> Any:
    """A frozen, nested base with batch normalisation under a head that was trained."""
    import keras

    layers = keras.layers
    base = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(24, 3, activation="relu"),
            layers.BatchNormalization(),
        ],
        name="base",
    )
    base.trainable = False
    frame = layers.Input((8, 8, 1))
    x = layers.Dense(32, activation="relu")(layers.Flatten()(base(frame)))
    return keras.Model(frame, layers.Dense(CLASSES, activation="softmax")(x), name="frozen_base")


def lstm(unroll: bool = False) -> Any:
    """Eight rows of pixels one after the other; a loop in the graph unless unrolled."""
    import keras

    layers = keras.layers
    model_layers = [layers.Input((8, 8), name="rows"), layers.LSTM(32, unroll=unroll), layers.Dense(CLASSES)]
    return keras.Sequential(model_layers, name="lstm_unrolled" if unroll else "lstm")


def lstm_unrolled() -> Any:
    """The same without a loop."""
    return lstm(unroll=True)


def two_inputs() -> Any:
    """A list of inputs, the camera's frame and four float sensors, into one classifier of logits."""
    import keras

    layers = keras.layers
    frame, sensors = layers.Input((8, 8, 1), name="camera"), layers.Input((4,), name="sensors")
    x = layers.Flatten()(layers.Conv2D(12, 3, activation="relu")(layers.Rescaling(1 / 255)(frame)))
    x = layers.Concatenate()([x, layers.Dense(8, activation="relu")(sensors)])
    return keras.Model(
        [frame, sensors], layers.Dense(CLASSES)(layers.Dense(32, activation="relu")(x)), name="two_inputs"
    )


def two_outputs() -> Any:
    """A list of outputs: a classifier and one plain number."""
    import keras

    layers = keras.layers
    frame = layers.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(12, 3, activation="relu")(layers.Rescaling(1 / 255)(frame)))
    x = layers.Dense(32, activation="relu")(x)
    ends = [layers.Dense(CLASSES, activation="softmax", name="digit")(x), layers.Dense(1, name="brightness")(x)]
    return keras.Model(frame, ends, name="two_outputs")


def two_eyes() -> Any:
    """Dictionaries of two frames and two classifiers, one of logits; both frames go through the same layers."""
    import keras

    layers = keras.layers
    eye = keras.Sequential(
        [
            layers.Input((8, 4, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.Flatten(),
        ],
        name="eye",
    )
    frames = {side: layers.Input((8, 4, 1), name=side) for side in ("right", "left")}
    x = layers.Concatenate()([eye(frame) for frame in frames.values()])
    x = layers.Dense(32, activation="relu")(x)
    ends = {"digit": layers.Dense(CLASSES)(x), "odd": layers.Dense(2, activation="softmax")(x)}
    return keras.Model(frames, ends, name="two_eyes")


def subclassed_pair() -> Any:
    """Subclassed, a dictionary of frames in and a list of unnamed outputs."""
    import keras

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="subclassed_pair")
            self.scale = keras.layers.Rescaling(1 / 255)
            self.flat = keras.layers.Flatten()
            self.join = keras.layers.Concatenate()
            self.hidden = keras.layers.Dense(32, activation="relu")
            self.digit = keras.layers.Dense(CLASSES, activation="softmax")
            self.odd = keras.layers.Dense(2, activation="softmax")

        def call(self, frames: dict[str, Any]) -> list[Any]:
            x = self.hidden(self.join([self.flat(self.scale(frames[side])) for side in ("left", "right")]))
            return [self.digit(x), self.odd(x)]

    model = Pair()
    model({side: np.zeros((1, 8, 4, 1), np.float32) for side in ("left", "right")})
    return model


TOPOLOGIES: dict[str, Callable[[], Any]] = {
    "sequential-logits": sequential_logits,
    "functional-batchnorm": functional_batchnorm,
    "subclassed": subclassed,
    "shared-layers": shared_layers,
    "features-mlp": features_mlp,
    "frozen-base": frozen_base,
    "lstm": lstm,
    "lstm-unrolled": lstm_unrolled,
    "two-inputs": two_inputs,
    "two-outputs": two_outputs,
    "two-eyes": two_eyes,
    "subclassed-pair": subclassed_pair,
}

LOGITS = ("sequential-logits", "shared-layers", "lstm", "lstm-unrolled", "two-inputs")


def inputs_for(name: str, frames: np.ndarray) -> Any:
    """Returns ``frames`` as the topology called ``name`` takes them: an array, or a mapping by input name."""
    if name == "features-mlp":
        return frames.reshape(len(frames), 64).astype(np.float32) / 64 - 2
    if name in ("lstm", "lstm-unrolled"):
        return frames[..., 0].astype(np.float32) / 255
    if name == "two-inputs":
        quarters = frames.reshape(len(frames), 2, 4, 2, 4).mean(axis=(2, 4)).reshape(len(frames), 4) / 255
        return {"camera": frames, "sensors": quarters.astype(np.float32)}
    if name in ("two-eyes", "subclassed-pair"):
        return {"left": frames[:, :, :4], "right": frames[:, :, 4:]}
    return frames


def classes_for(name: str, labels: np.ndarray) -> Any:
    """Returns ``labels`` as the topology's outputs are labelled: an array, or a mapping by output name."""
    if name == "two-outputs":
        return {"digit": labels}
    if name == "two-eyes":
        return {"digit": labels, "odd": labels % 2}
    if name == "subclassed-pair":
        return {"output_0": labels, "output_1": labels % 2}
    return labels


def names_for(name: str) -> Any:
    """Returns the class names of the topology's outputs, a list or a mapping by output name."""
    wanted = classes_for(name, np.zeros(1, np.int64))
    if not isinstance(wanted, dict):
        return LABELS
    return {output: ["even", "odd"] if output in ("odd", "output_1") else LABELS for output in wanted}


def take_part(x: Any, rows: Any) -> Any:
    """Returns ``rows`` of an array, or of every array of a mapping."""
    return {name: part[rows] for name, part in x.items()} if isinstance(x, dict) else x[rows]


def trained(name: str, data: Digits, epochs: int = 12) -> Any:
    """Returns the topology called ``name`` after a few epochs on the digits."""
    import keras

    keras.utils.set_random_seed(5)
    model = TOPOLOGIES[name]()
    loss = keras.losses.SparseCategoricalCrossentropy
    losses: Any = loss(from_logits=name in LOGITS)
    y: Any = classes_for(name, data.y_train)
    if name == "two-outputs":
        losses, y = ["sparse_categorical_crossentropy", "mse"], [y["digit"], data.x_train.mean(axis=(1, 2, 3)) / 64]
    if name == "two-eyes":
        losses = {"digit": loss(from_logits=True), "odd": loss()}
    if name == "subclassed-pair":
        losses, y = [loss(), loss()], list(y.values())
    if name == "two-inputs":
        x: Any = list(inputs_for(name, data.x_train).values())
    else:
        x = inputs_for(name, data.x_train)
    model.compile(keras.optimizers.Adam(3e-3), losses)
    epochs = 3 * epochs if name.startswith("lstm") else epochs  # a row at a time is learnt more slowly
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model
