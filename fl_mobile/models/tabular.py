"""A model for rows of numbers."""

from __future__ import annotations

from typing import Any

UNITS = (64, 32)


def tabular_mlp(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns hidden layers of 64 and 32 rectified units over rows of standardised features, and a linear head."""
    import keras
    from keras import layers

    if len(input_shape) != 1:
        raise ValueError(f"expected rows of features (features,), got {input_shape}")
    inputs = keras.Input(input_shape, name="features")
    x = inputs if input_scale == 1 else layers.Rescaling(input_scale, name="rescale")(inputs)
    for i, units in enumerate(UNITS, 1):
        x = layers.Dense(units, activation="relu", name=f"dense{i}")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="head")(x), name="tabular_mlp")
