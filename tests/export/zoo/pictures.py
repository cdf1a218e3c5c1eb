"""Two and three dimensions, and normalisation."""

from __future__ import annotations

from typing import Any

from keras import layers as L

from tests.export.zoo.build import CAMERA, ROWS, stack

# Two dimensions


def strides_and_dilation() -> Any:
    """Unequal strides, holes, groups."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.Conv2D(6, 3, (2, 1), activation="relu"),
        L.Conv2D(6, 3, dilation_rate=2),
        L.Conv2D(6, 3, groups=3),
        L.GlobalAveragePooling2D(),
        L.Dense(3),
    )


def separable2d() -> Any:
    """Depthwise with a multiplier, separable."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
        L.SeparableConv2D(6, 3, 2, padding="same"),
        L.GlobalMaxPooling2D(),
        L.Dense(3),
    )


def transposed2d() -> Any:
    """A decoder: strides 1 and 2, both paddings."""
    return stack(
        (4, 4, 3),
        L.Conv2DTranspose(4, 3, 2, padding="same", activation="relu"),
        L.Conv2DTranspose(2, 3, 1),
        L.Conv2DTranspose(2, 2, 2),
    )


def upsampling() -> Any:
    """Nearest and bilinear."""
    return stack(
        (4, 4, 3), L.UpSampling2D(2), L.Conv2D(3, 3, padding="same"), L.UpSampling2D(2, interpolation="bilinear")
    )


def pooling() -> Any:
    """Every kind, every padding."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.MaxPooling2D(3, 2, padding="same"),
        L.AveragePooling2D(2, 1),
        L.AveragePooling2D(2, padding="same"),
        L.Flatten(),
        L.Dense(3),
    )


def adaptive_pooling() -> Any:
    """To a size, whatever the frame's."""
    return stack(CAMERA, L.Rescaling(1 / 255), L.AdaptiveAveragePooling2D(4), L.Flatten(), L.Dense(3))


def padding_and_cropping() -> Any:
    """Zeros around, edges off."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.ZeroPadding2D(((1, 0), (2, 1))),
        L.Conv2D(4, 3, 2),
        L.Cropping2D(1),
        L.Flatten(),
        L.Dense(3),
    )


# Three dimensions


def conv3d() -> Any:
    """A volume."""
    return stack((6, 6, 6, 1), L.Conv3D(3, 3, activation="relu"), L.Flatten(), L.Dense(3))


def pool3d() -> Any:
    """Volumes pooled and padded."""
    return stack((4, 4, 4, 2), L.ZeroPadding3D(1), L.MaxPooling3D(), L.AveragePooling3D(3), L.Flatten(), L.Dense(3))


def transposed3d() -> Any:
    """A volume made larger."""
    return stack((3, 3, 3, 2), L.Conv3DTranspose(2, 2, 2), L.UpSampling3D(2))


# Normalisation


def batch_norm() -> Any:
    """After a convolution, where it is folded, and before one, where it is not."""
    return stack(
        CAMERA,
        L.Rescaling(1 / 255),
        L.Conv2D(6, 3, use_bias=False),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(),
        L.BatchNormalization(),
        L.Conv2D(4, 3),
        L.Flatten(),
        L.Dense(3),
    )


def layer_norm() -> Any:
    """Over the last axis and over two."""
    return stack(
        ROWS, L.LayerNormalization(), L.Dense(6, "relu"), L.LayerNormalization(axis=(1, 2)), L.Flatten(), L.Dense(3)
    )


def group_norm() -> Any:
    """By groups, and of each channel by itself."""
    return stack(
        (8, 8, 4),
        L.GroupNormalization(2),
        L.Conv2D(4, 3, activation="relu"),
        L.GroupNormalization(-1),
        L.Flatten(),
        L.Dense(3),
    )


def unit_and_rms_norm() -> Any:
    """Lengths of one."""
    return stack((12,), L.Dense(8), L.UnitNormalization(), L.Dense(8, "relu"), L.RMSNormalization(), L.Dense(3))


def spectral_norm() -> Any:
    """A kernel by its largest singular value."""
    return stack((12,), L.SpectralNormalization(L.Dense(8, "relu")), L.Dense(3))


def adapted() -> Any:
    """Mean and variance of the data."""
    norm = L.Normalization(mean=[1.0, -2.0, 0.5], variance=[4.0, 0.25, 1.0])
    return stack((3,), norm, L.Dense(8, "relu"), L.Dense(3))
