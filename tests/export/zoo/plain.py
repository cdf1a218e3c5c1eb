"""Rows of numbers: classifiers, regressors, several ends, activations, and how models are put together."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as L
from keras import ops

from tests.export.zoo.build import CAMERA, ROWS, Build, graph, stack

# Classifiers and regressors


def mlp() -> Any:
    """Dense classifier ending in softmax."""
    return stack((12,), L.Dense(16, "relu"), L.Dropout(0.2), L.Dense(5, "softmax"))


def picture_classifier() -> Any:
    """The camera's frame, normalised inside, pooled, logits."""
    return stack(
        CAMERA, L.Rescaling(1 / 255), L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(5)
    )


def binary() -> Any:
    """One sigmoid unit."""
    return stack((12,), L.Dense(8, "tanh"), L.Dense(1, "sigmoid"))


def multi_label() -> Any:
    """Sigmoids that do not add up to one."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 127.5, -1),
        L.Conv2D(6, 3, 2, activation="relu"),
        L.GlobalAveragePooling2D(),
        L.Dense(4, "sigmoid"),
    )


def regressor() -> Any:
    """One number."""
    return stack((12,), L.Dense(16, "relu"), L.Dense(1))


def many_numbers() -> Any:
    """Several numbers, without biases."""
    return stack((12,), L.Dense(16, "relu", use_bias=False), L.Dense(7, use_bias=False))


def linear() -> Any:
    """Nothing but a matrix."""
    return stack((12,), L.Dense(3))


# Several inputs and outputs


def two_inputs() -> Any:
    """Picture and sensors."""

    def answer(camera: Any, sensors: Any) -> Any:
        x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu")(L.Rescaling(1 / 255)(camera)))
        return L.Dense(4)(L.Concatenate()([x, L.Dense(4, "relu")(sensors)]))

    return graph({"camera": CAMERA, "sensors": (5,)}, answer)


def three_inputs_merged() -> Any:
    """Added, multiplied, averaged, subtracted, largest and least of three."""

    def answer(a: Any, b: Any, c: Any) -> Any:
        merged = [L.Add()([a, b, c]), L.Multiply()([a, b]), L.Average()([a, c]), L.Subtract()([b, c])]
        return L.Dense(3)(L.Concatenate()([*merged, L.Maximum()([a, b, c]), L.Minimum()([a, b, c]), L.Dot(1)([a, b])]))

    return graph({"a": (6,), "b": (6,), "c": (6,)}, answer)


def two_outputs() -> Any:
    """A class and a box."""

    def answer(frame: Any) -> Any:
        x = L.Flatten()(L.Conv2D(6, 3, 2, activation="relu")(L.Rescaling(1 / 255)(frame)))
        return {"kind": L.Dense(4, "softmax", name="kind")(x), "box": L.Dense(4, name="box")(x)}

    return graph(CAMERA, answer)


def outputs_of_every_rank() -> Any:
    """A map, a sequence and a vector."""

    def answer(frame: Any) -> Any:
        x = L.Conv2D(4, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(frame))
        rows = L.Reshape((16, 64))(x)
        return [x, L.Dense(3)(rows), L.GlobalMaxPooling1D()(rows)]

    return graph(CAMERA, answer)


# Activations


def activations(*names: str) -> Build:
    """Returns a kind with each of ``names`` on a branch."""

    def build() -> Any:
        return graph((12,), lambda x: L.Dense(3)(L.Concatenate()([L.Dense(6, name)(x) for name in names])))

    return build


def activation_layers() -> Any:
    """Those with numbers or weights of their own."""

    def answer(x: Any) -> Any:
        kinds = [L.ReLU(6.0, 0.1, 0.2), L.LeakyReLU(0.3), L.ELU(0.7), L.Softmax(), L.PReLU("ones"), L.ReLU(4.0)]
        return L.Dense(3)(L.Concatenate()([kind(L.Dense(5)(x)) for kind in kinds]))

    return graph((12,), answer)


# Shapes


def reshaping() -> Any:
    """Reshape, permute, repeat, flatten."""

    def answer(x: Any) -> Any:
        turned = L.Permute((2, 1))(L.Reshape((3, 4))(x))
        return L.Dense(3)(L.Concatenate()([L.Flatten()(turned), L.Flatten()(L.RepeatVector(2)(L.Dense(4)(x)))]))

    return graph((12,), answer)


# How models are put together


def shared() -> Any:
    """One layer in two places."""

    def answer(left: Any, right: Any) -> Any:
        eye = L.Dense(6, "relu")
        return L.Dense(1)(ops.abs(eye(left) - eye(right)))

    return graph({"left": (8,), "right": (8,)}, answer)


def nested() -> Any:
    """Models in models."""
    inner = stack((8, 8, 3), L.Conv2D(4, 3, activation="relu"), L.BatchNormalization())
    middle = graph((8, 8, 3), lambda x: L.Flatten()(inner(x)))
    return stack((8, 8, 3), L.Rescaling(1 / 255), middle, L.Dense(3))


def residual() -> Any:
    """Around two convolutions."""

    def answer(frame: Any) -> Any:
        x = L.Conv2D(4, 1)(L.Rescaling(1 / 255)(frame))
        y = L.Conv2D(4, 3, padding="same")(L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x))))
        return L.Dense(3, "softmax")(L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, y]))))

    return graph(CAMERA, answer)


def squeeze_and_excite() -> Any:
    """Channels weighed by themselves."""

    def answer(frame: Any) -> Any:
        x = L.Conv2D(8, 3, activation="silu")(L.Rescaling(1 / 255)(frame))
        weights = L.Conv2D(8, 1, activation="sigmoid")(
            L.Conv2D(2, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
        )
        return L.Dense(3)(L.Flatten()(L.Multiply()([x, weights])))

    return graph(CAMERA, answer)


def dense_block() -> Any:
    """Everything before goes on."""

    def answer(frame: Any) -> Any:
        x = L.Rescaling(1 / 255)(frame)
        for _ in range(3):
            x = L.Concatenate()([x, L.Conv2D(3, 3, padding="same", activation="relu")(x)])
        return L.Dense(3)(L.GlobalAveragePooling2D()(x))

    return graph(CAMERA, answer)


def unet() -> Any:
    """A class for every pixel."""

    def answer(frame: Any) -> Any:
        top = L.Conv2D(4, 3, padding="same", activation="relu")(L.Rescaling(1 / 255)(frame))
        bottom = L.Conv2D(6, 3, padding="same", activation="relu")(L.MaxPooling2D()(top))
        up = L.Concatenate()([top, L.Conv2DTranspose(4, 2, 2)(bottom)])
        return L.Conv2D(3, 1, activation="softmax")(up)

    return graph(CAMERA, answer)


def autoencoder() -> Any:
    """Through a narrow place and back."""
    return stack((24,), L.Dense(6, "relu"), L.Dense(24, "sigmoid"))


def picture_autoencoder() -> Any:
    """The same with convolutions."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.Conv2D(4, 3, 2, padding="same", activation="relu"),
        L.Conv2DTranspose(3, 3, 2, padding="same", activation="sigmoid"),
    )


def augmented() -> Any:
    """Layers that only work while it trains."""
    return stack(
        CAMERA,
        L.RandomFlip(),
        L.RandomRotation(0.1),
        L.GaussianNoise(0.1),
        L.Rescaling(1 / 255),
        L.SpatialDropout2D(0.1),
        L.Conv2D(4, 3, activation="relu"),
        L.GlobalAveragePooling2D(),
        L.ActivityRegularization(0.1),
        L.AlphaDropout(0.1),
        L.Dense(3),
    )


def subclassed() -> Any:
    """Its author wrote ``call``."""

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = L.Dense(8, "relu"), L.Dense(3)

        def call(self, x: Any) -> Any:
            return self.two(self.one(x) * 2.0 + 1.0)

    net = Net()
    net(np.zeros((1, 12), np.float32))
    return net


def low_rank() -> Any:
    """A dense layer with LoRA, moved away from zero."""
    net = stack((12,), L.Dense(8, "relu"), L.Dense(3))
    net.layers[0].enable_lora(2)
    rng = np.random.default_rng(0)
    for weight in net.layers[0].weights:
        weight.assign(rng.standard_normal(weight.shape))
    return net


def einsum_dense() -> Any:
    """A product over two axes."""
    return stack(ROWS, L.EinsumDense("abc,cd->abd", (8, 5), bias_axes="d", activation="relu"), L.Flatten(), L.Dense(3))


def stochastic_depth() -> Any:
    """A gate that is open in inference, identities around it."""
    return stack((12,), L.Dense(8), L.Identity(), L.GaussianDropout(0.2), L.Activation("relu"), L.Dense(3))
