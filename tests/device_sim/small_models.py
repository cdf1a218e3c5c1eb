"""Small real Keras models of every topology the bridge and the engines must take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SHAPE, CLASSES = (6, 6, 1), 3


def three_dense() -> Any:
    """467 parameters in layers whose variables are all *named* kernel and bias (peers' defect B1)."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            layers.Input(SHAPE),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Flatten(),
            *(layers.Dense(n, "relu", name=f"d{n}") for n in (8, 14)),
            layers.Dense(3, name="out"),
        ]
    )


def with_batchnorm() -> Any:
    """Functional, convolution, batch norm and dropout."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    x = inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 255, name="scale")(x))
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Dropout(0.3, name="drop")(layers.ReLU(name="relu")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="out")(layers.Flatten(name="flat")(x)))


def frozen_base() -> Any:
    """A frozen base with batch norm, nested as a model, under a trainable head."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    base = keras.Sequential(
        [layers.Input(SHAPE), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn"), layers.Flatten()],
        name="base",
    )
    base.trainable = False
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(base(inputs, training=False)))


def subclassed() -> Any:
    """A subclassed model with a nested subclassed layer, dropout, and probabilities as output."""
    import keras
    from keras import layers

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.dense, self.drop = layers.Dense(8, "relu", name="dense"), layers.Dropout(0.2, name="drop")

        def call(self, x: Any, training: bool = False) -> Any:
            return self.drop(self.dense(x), training=training)

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.scale = layers.Rescaling(1 / 255, name="scale")
            self.flat, self.block = layers.Flatten(name="flat"), Block()
            self.out = layers.Dense(CLASSES, "softmax", name="out")

        def call(self, x: Any, training: bool = False) -> Any:
            return self.out(self.block(self.flat(self.scale(x)), training=training))

    keras.utils.set_random_seed(4)
    model = Net()
    model(np.zeros((1, *SHAPE), np.float32))
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "three-dense": three_dense,
    "batchnorm": with_batchnorm,
    "frozen-base": frozen_base,
    "subclassed": subclassed,
}
