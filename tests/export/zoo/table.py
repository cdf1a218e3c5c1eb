"""The zoo: kinds of model that people bring, each small and with random weights; one function a kind.

A kind says what it is by its layers alone; its frames come from ``tests.export.zoo.build.frames_of``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import keras

from tests.export.zoo import own, pictures, plain, sequences
from tests.export.zoo.build import Build
from tests.export.zoo.plain import activations


def application(name: str, **options: Any) -> Build:
    """Returns a kind that is a mobile family of ``keras.applications`` at 32 pixels."""

    def build() -> Any:
        made: Any = getattr(keras.applications, name)
        return made(input_shape=(32, 32, 3), weights=None, include_top=False, pooling="avg", **options)

    return build


def named(module: ModuleType) -> dict[str, Build]:
    """Returns the kinds of one file: its functions without arguments, by name."""
    made = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name.replace("_", "-"): value for name, value in made.items() if callable(value) and name != "activations"}


KINDS: dict[str, Build] = {
    **named(plain),
    **named(sequences),
    **named(pictures),
    **named(own),
    "activations-hard": activations("relu", "relu6", "leaky_relu", "hard_sigmoid", "hard_silu", "hard_tanh", "linear"),
    "activations-smooth": activations("elu", "selu", "gelu", "silu", "mish", "softplus", "softsign", "tanh", "celu"),
    "activations-scores": activations("sigmoid", "softmax", "log_sigmoid", "log_softmax", "exponential"),
    "activations-rare": activations("squareplus", "tanh_shrink", "hard_shrink", "soft_shrink", "sparsemax"),
    "mobilenet": application("MobileNet", alpha=0.25),
    "mobilenet-v2": application("MobileNetV2", alpha=0.35),
    "mobilenet-v3-small": application("MobileNetV3Small", alpha=0.75, minimalistic=True),
    "efficientnet-b0": application("EfficientNetB0"),
    "nasnet-mobile": application("NASNetMobile"),
}
"""Name → builder."""


def built(kind: str) -> Any:
    """Returns the kind's model, the same weights every time."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    return KINDS[kind]()
