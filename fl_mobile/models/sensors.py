"""A model of sensors' recordings small enough for a phone."""

from __future__ import annotations

from typing import Any

FILTERS = (32, 64, 64)


def har_cnn(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns three convolutions over time, each halved by max-pooling, their mean over time, and class scores.

    Inputs are ``float32[n, samples, channels]``.
    """
    import keras
    from keras import layers

    if len(input_shape) != 2:
        raise ValueError(f"expected windows of a recording (samples, channels), got {input_shape}")
    inputs = keras.Input(input_shape, name="window")
    x = inputs if input_scale == 1 else layers.Rescaling(input_scale, name="rescale")(inputs)
    for i, filters in enumerate(FILTERS, 1):
        x = layers.Conv1D(filters, 5, padding="same", activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling1D(2, name=f"pool{i}")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="har_cnn")
