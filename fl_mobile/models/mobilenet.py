"""MobileNets of ``keras.applications`` under a dense head, in one flat graph.

Flat, not nested: the base's layers are the model's own, so their variables' paths are those of the published weights
and an exporter sees plain layers.
"""

from __future__ import annotations

from typing import Any


def mobilenet_v2_head(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns MobileNetV2 with every layer frozen but the head; frozen batch-norm uses its moving statistics."""
    model = _mobilenet(
        application="MobileNetV2",
        alpha=1.0,
        input_shape=input_shape,
        num_classes=num_classes,
        input_scale=input_scale,
        name="mobilenet_v2_head",
    )
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def mobilenet_v2_035(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns MobileNetV2 of width 0.35 that trains as a whole."""
    return _mobilenet(
        application="MobileNetV2",
        alpha=0.35,
        input_shape=input_shape,
        num_classes=num_classes,
        input_scale=input_scale,
        name="mobilenet_v2_035",
    )


def mobilenet_v1_025(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns MobileNet of width 0.25 that trains as a whole."""
    return _mobilenet(
        application="MobileNet",
        alpha=0.25,
        input_shape=input_shape,
        num_classes=num_classes,
        input_scale=input_scale,
        name="mobilenet_v1_025",
    )


def _mobilenet(
    application: str, alpha: float, input_shape: tuple[int, ...], num_classes: int, input_scale: float, name: str
) -> Any:
    import keras
    from keras import layers

    if min(input_shape[:2]) < 32:  # five halvings: below, the last maps are a single pixel of padding
        raise ValueError(f"MobileNets need pictures of at least 32×32 pixels, got {input_shape[0]}×{input_shape[1]}")
    inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(2 * input_scale, offset=-1.0, name="rescale")(inputs)  # the published weights want -1..1
    base = getattr(keras.applications, application)(
        input_tensor=x, input_shape=input_shape, alpha=alpha, include_top=False, weights=None
    )
    x = layers.GlobalAveragePooling2D(name="pool")(base.output)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name=name)
