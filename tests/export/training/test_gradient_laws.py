"""Laws over the layer table: the converted program's gradients are TensorFlow's, whatever the sizes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.training.gradients import RULES
from fl_mobile.errors import ExportError
from tests.export.training.gradients import by_tensorflow, on_device, worst_relative_error
from tests.export.training.layer_table import LAYERS, L, Ramp, model_of

pytestmark = pytest.mark.tf
BOUND = 1e-5


def _error_of(case: Any, x: np.ndarray | None = None, batch: int = 3) -> float:
    keras.utils.set_random_seed(3)
    model = model_of(case)
    if x is None:
        x = np.random.default_rng(7).standard_normal((batch, *case[0])).astype(np.float32)
    want = by_tensorflow(model, x)
    return worst_relative_error(on_device(model, x), want)


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_is_tensorflows(name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    assert _error_of(LAYERS[name](lambda options: options[int(rng.integers(len(options)))])) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_gradient_is_tensorflows_for_any_size(name: str, data: Any) -> None:
    case = LAYERS[name](lambda options: data.draw(st.sampled_from(list(options))))
    assert _error_of(case, batch=data.draw(st.integers(1, 4))) <= BOUND


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1), (3, 3)])
def test_of_equal_maxima_the_first_gets_the_gradient(size: int, stride: int, padding: str) -> None:
    """Whole numbers from a range of three make ties in nearly every window, at values of either sign."""
    x = np.random.default_rng(size + stride).integers(-1, 2, (2, 7, 9, 3)).astype(np.float32)
    assert _error_of(((7, 9, 3), [L.MaxPooling2D(size, stride, padding)]), x) <= 1e-6


@pytest.mark.parametrize("activation", ["relu", None])
@pytest.mark.parametrize("size", [2, 3])
def test_of_equal_maxima_of_a_convolution_the_first_gets_the_gradient(size: int, activation: str | None) -> None:
    x = np.random.default_rng(size).integers(-1, 2, (2, 8, 9, 3)).astype(np.float32)
    layers = [L.Conv2D(2, 1, kernel_initializer="ones", activation=activation), L.MaxPooling2D(size)]
    assert _error_of(((8, 9, 3), layers), x) <= 1e-6


def test_a_convolution_that_others_read_is_not_taken_into_its_pool() -> None:
    """Both branches of a convolution's result must hand back a gradient."""

    class Branches(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.all = L.Conv2D(2, 3), L.MaxPooling2D(2), L.GlobalAveragePooling2D()

        def build(self, shape: Any) -> None:
            self.conv.build(shape)

        def call(self, x: Any) -> Any:
            y = self.conv(x)
            return self.pool(y) + self.all(y)[:, None, None, :]

    assert _error_of(((7, 7, 2), [Branches()])) <= BOUND


@pytest.mark.parametrize("kind", [L.GlobalMaxPooling2D, L.GlobalAveragePooling2D])
def test_ties_of_a_global_pool_share(kind: Any) -> None:
    x = np.random.default_rng(1).integers(-1, 2, (2, 5, 4, 3)).astype(np.float32)
    assert _error_of(((5, 4, 3), [kind()]), x) <= 1e-6


class Shift(keras.layers.Layer):
    """Adds nothing to its input, trainably: what is multiplied, as by `Ramp`, hides a gradient at 0."""

    def build(self, shape: Any) -> None:
        self.offset = self.add_weight(shape=shape[1:], initializer="zeros", name="offset")

    def call(self, x: Any) -> Any:
        return x + self.offset


_NAMED = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "gelu"),
    *("mish", "softplus", "softsign", "tanh", "sigmoid", "hard_sigmoid", "hard_silu", "hard_tanh"),
    *(
        "hard_shrink",
        "soft_shrink",
        "tanh_shrink",
        "sparse_plus",
        "sparse_sigmoid",
        "squareplus",
        "log_sigmoid",
        "exponential",
    ),
)
CORNERED = {name: getattr(keras.activations, name) for name in _NAMED} | {
    "abs": keras.ops.abs,
    "clip": lambda x: keras.ops.clip(x, -3.0, 6.0),
    "sign": lambda x: x * keras.ops.sign(x),
    "maximum": lambda x: keras.ops.maximum(x, 3.0),
    "minimum": lambda x: keras.ops.minimum(0.0, x),
    "where": lambda x: keras.ops.where(x > 0, x, 2.0 * x),
    "square": keras.ops.square,
    "floor": lambda x: x * keras.ops.floor(x),
}


@pytest.mark.parametrize("name", CORNERED)
def test_activations_at_their_corners(name: str) -> None:
    """A bias that starts at zero, dropped rows and padding put many numbers exactly there."""
    corners = np.array([[0.0, -0.0, 6.0, 3.0, -3.0, 1.0, -1.0, 0.5, -0.5, 1e-30, -1e-30, 5.0, -20.0, 9.0]], np.float32)
    model = keras.Sequential([keras.Input((14,)), Shift(), L.Activation(CORNERED[name])])
    assert worst_relative_error(on_device(model, corners), by_tensorflow(model, corners)) <= BOUND


@pytest.mark.parametrize("kind", [L.Maximum, L.Minimum])
def test_equal_inputs_of_maximum_and_minimum(kind: Any) -> None:
    class Self(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return kind()([x, 1.0 * x])

    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    assert _error_of(((5,), [Self()]), x) <= 1e-6


def test_a_token_that_occurs_twice_collects_both_gradients() -> None:
    from tests.export.training.gradients import on_device as run

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), L.Embedding(5, 3), L.GlobalAveragePooling1D(), L.Dense(2)])
    x = np.array([[1, 1, 4, 0, 1, 4], [2, 2, 2, 2, 2, 2]], np.float32)
    assert worst_relative_error(run(model, x), by_tensorflow(model, x)) <= BOUND


WRONG = {
    "Relu": ("relu-layer", lambda rule: lambda node, g: (g,)),
    "Conv2D": ("conv2d", lambda rule: lambda node, g: [p if p is None else p * 1.001 for p in rule(node, g)]),
    "MaxPool": ("max-pool", lambda rule: lambda node, g: [-p for p in rule(node, g)]),
    "ConvMaxPool": ("conv-relu-pool", lambda rule: lambda node, g: [p * 1.001 for p in rule(node, g)]),
    "Tanh": ("activation-tanh", lambda rule: lambda node, g: (g * (1.0 - node.outputs[0]),)),
    "Sigmoid": ("activation-sigmoid", lambda rule: lambda node, g: (g * node.outputs[0],)),
    "DepthwiseConv2dNative": ("depthwise", lambda rule: lambda node, g: [p * 0.99 for p in rule(node, g)]),
    "DeviceBatchNorm": ("batch-norm", lambda rule: lambda node, g, *_: [g, *rule(node, g)[1:]]),
}


@pytest.mark.parametrize("row", WRONG)
def test_a_wrong_rule_turns_its_law_red(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = WRONG[row]
    monkeypatch.setitem(RULES, row, replace(RULES[row], backward=spoil(RULES[row].backward)))
    assert _error_of(LAYERS[name](lambda options: options[0])) > 10 * BOUND


def test_an_operation_without_a_rule_is_refused_with_its_layer() -> None:
    class Odd(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.cumprod(x, axis=1) if hasattr(keras.ops, "cumprod") else keras.ops.prod(x, axis=1)

    model = keras.Sequential([keras.Input((4,)), Ramp(), Odd(name="odd_one"), L.Dense(2)])
    with pytest.raises(ExportError, match="odd_one"):
        on_device(model, np.ones((2, 4), np.float32))


@pytest.mark.parametrize(
    ("layer", "instead"),
    [
        (L.Lambda(lambda x: x, name="mine"), "write it as a Layer"),
        (L.RandomRotation(0.1, name="turn"), "augmentation in front"),
        (L.BatchNormalization(axis=1, name="first"), "last axis"),
    ],
)
def test_unsupported_layers_are_refused_by_name(layer: Any, instead: str) -> None:
    model = keras.Sequential([keras.Input((6, 6, 3)), Ramp(), layer])
    with pytest.raises(ExportError, match=re.compile(f"{layer.name}.*{instead}")):
        on_device(model, np.ones((2, 6, 6, 3), np.float32))
