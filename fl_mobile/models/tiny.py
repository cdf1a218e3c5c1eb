"""Two reference models of MLPerf Tiny (Banbury et al. 2021, arXiv 2106.07597), as mlcommons/tiny builds them.

Without their weight decay: the loss belongs to the fit plan, so that every engine trains the same one.
"""

from __future__ import annotations

from typing import Any


def resnet_8(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns ResNet-8: a convolution, three stacks of 16, 32 and 64 filters, mean over the picture, dense."""
    import keras
    from keras import layers

    inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(input_scale, name="rescale")(inputs)
    x = layers.ReLU(name="stem_relu")(_conv_norm(x=x, filters=16, size=3, stride=1, name="stem"))
    for i, (filters, stride) in enumerate(((16, 1), (32, 2), (64, 2)), 1):
        name = f"stack{i}"
        y = layers.ReLU(name=f"{name}_relu1")(_conv_norm(x=x, filters=filters, size=3, stride=stride, name=f"{name}_a"))
        y = _conv_norm(x=y, filters=filters, size=3, stride=1, name=f"{name}_b")
        if stride > 1:
            x = _conv(x=x, filters=filters, size=1, stride=stride, name=f"{name}_shortcut")
        x = layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(num_classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(inputs, x, name="resnet_8")


def ds_cnn(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns DS-CNN: a 10×4 convolution of stride 2, four depthwise-separable blocks of 64, mean, dense."""
    import keras
    from keras import layers

    inputs = keras.Input(input_shape, name="mfcc")
    x = layers.Rescaling(input_scale, name="rescale")(inputs)
    x = layers.Conv2D(64, (10, 4), strides=2, padding="same", name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.Dropout(0.2, name="stem_dropout")(x)
    for i in range(1, 5):
        x = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{i}")(x)
        x = layers.ReLU(name=f"depthwise{i}_relu")(layers.BatchNormalization(name=f"depthwise{i}_norm")(x))
        x = layers.Conv2D(64, 1, name=f"pointwise{i}")(x)
        x = layers.ReLU(name=f"pointwise{i}_relu")(layers.BatchNormalization(name=f"pointwise{i}_norm")(x))
    x = layers.Dropout(0.4, name="dropout")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="ds_cnn")


def _conv(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
    from keras import layers

    return layers.Conv2D(
        filters, size, strides=stride, padding="same", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)


def _conv_norm(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(name=f"{name}_norm")(
        _conv(x=x, filters=filters, size=size, stride=stride, name=name)
    )
