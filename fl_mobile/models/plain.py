"""The small models of the federated-learning literature."""

from __future__ import annotations

from typing import Any


def smart_camera_cnn(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns conv 3×3×32, max-pool, conv 3×3×64, max-pool, dropout ¼, dense 128, dense ``num_classes`` (logits)."""
    import keras
    from keras import layers

    x = inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(input_scale, name="rescale")(x)
    for i, filters in enumerate((32, 64), 1):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Dropout(0.25, name="dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="smart_camera_cnn")


def tanh_cnn(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns two strided convolutions with pools, dense 32, dense ``num_classes`` (logits), tanh between them.

    Few parameters and bounded activations are what noise costs least: Papernot et al., "Tempered sigmoid activations
    for deep learning with differential privacy", AAAI 2021.
    """
    import keras
    from keras import layers

    x = inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(input_scale, name="rescale")(x)
    for i, (filters, size, padding) in enumerate(((16, 8, "same"), (32, 4, "valid")), 1):
        x = layers.Conv2D(filters, size, 2, padding, activation="tanh", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, 1, name=f"pool{i}")(x)
    x = layers.Dense(32, activation="tanh", name="dense")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="tanh_cnn")


def mlp(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns two hidden layers of 200 rectified units over any input shape."""
    import keras
    from keras import layers

    x = inputs = keras.Input(input_shape, name="features")
    x = layers.Flatten(name="flatten")(layers.Rescaling(input_scale, name="rescale")(x))
    for i in (1, 2):
        x = layers.Dense(200, activation="relu", name=f"dense{i}")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="mlp")


def logistic(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns multinomial logistic regression over any input shape."""
    import keras
    from keras import layers

    x = inputs = keras.Input(input_shape, name="features")
    x = layers.Flatten(name="flatten")(layers.Rescaling(input_scale, name="rescale")(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="logistic")
