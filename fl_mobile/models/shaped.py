"""Models whose answers have the shape of their inputs: a picture's pixels named, anything rebuilt."""

from __future__ import annotations

import math
from typing import Any

UNITS, CODE = 64, 16
WIDTHS = (8, 16, 32)


def autoencoder(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns a dense autoencoder for inputs of any shape: 64 units, a code of 16, 64 units, the input again.

    Args:
        num_classes: Numbers of an input; what is rebuilt is the input times ``input_scale``.
    """
    import keras
    from keras import layers

    numbers = math.prod(input_shape)
    if num_classes != numbers:
        raise ValueError(f"expected as many answers as inputs have numbers, {numbers}, got {num_classes}")
    inputs = keras.Input(input_shape, name="example")
    x = inputs if input_scale == 1 else layers.Rescaling(input_scale, name="rescale")(inputs)
    x = x if len(input_shape) == 1 else layers.Flatten(name="flatten")(x)
    x = layers.Dense(UNITS, activation="relu", name="encode")(x)
    x = layers.Dense(CODE, name="code")(x)
    x = layers.Dense(UNITS, activation="relu", name="decode")(x)
    x = layers.Dense(numbers, name="numbers")(x)
    x = x if len(input_shape) == 1 else layers.Reshape(input_shape, name="rebuilt")(x)
    return keras.Model(inputs, x, name="autoencoder")


def tiny_unet(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns a U-Net (Ronneberger et al. 2015) of widths 8, 16 and 32, two convolutions at each, with class scores at
    every pixel.

    Inputs are ``[n, height, width, channels]``; height and width are multiples of 4.
    """
    import keras
    from keras import layers

    if len(input_shape) != 3 or input_shape[0] % 4 or input_shape[1] % 4:
        raise ValueError(f"expected pictures (height, width, channels), sides multiples of 4, got {input_shape}")

    def twice(x: Any, filters: int, name: str) -> Any:
        for half in "ab":
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name + half)(x)
        return x

    inputs = keras.Input(input_shape, name="image")
    x = inputs if input_scale == 1 else layers.Rescaling(input_scale, name="rescale")(inputs)
    across = []
    for level, filters in enumerate(WIDTHS[:-1]):
        x = twice(x, filters, f"down{level}")
        across.append(x)
        x = layers.MaxPooling2D(2, name=f"pool{level}")(x)
    x = twice(x, WIDTHS[-1], "bottom")
    for level in reversed(range(len(across))):
        x = layers.UpSampling2D(2, name=f"wider{level}")(x)
        x = layers.Concatenate(name=f"across{level}")([x, across[level]])
        x = twice(x, WIDTHS[level], f"up{level}")
    return keras.Model(inputs, layers.Conv2D(num_classes, 1, name="logits")(x), name="tiny_unet")
