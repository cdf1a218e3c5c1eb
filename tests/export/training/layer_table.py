"""Every layer whose gradient is claimed, as one table: name → draw a case. A new row is tested without a new test.

A case draws its sizes through ``pick(options)``, so the same table serves fixed examples and hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

Pick = Callable[[Sequence[Any]], Any]
Case = tuple[tuple[int, ...], list[Any]]
L = keras.layers


def _image(pick: Pick, low: int = 5) -> tuple[int, int, int]:
    return pick([low, low + 1, low + 4]), pick([low + 1, low + 2, low + 5]), pick([1, 2, 3])


def _conv(pick: Pick) -> Case:
    kernel = pick([(3, 3), (1, 1), (2, 3), (5, 5), (4, 4)])
    return _image(pick), [L.Conv2D(pick([1, 4]), kernel, pick([1, 2, 3]), pick(["same", "valid"]))]


def _strided(pick: Pick) -> Case:
    """Strides that differ between rows and columns, forwards and backwards, grouped or not."""
    strides, padding = pick([(1, 2), (3, 1), (2, 3)]), pick(["same", "valid"])
    kernel, groups = pick([(3, 3), (2, 3), (1, 1)]), pick([1, 2])
    layers = [L.Conv2D(4, kernel, strides, padding, groups=groups), L.Conv2DTranspose(3, kernel, strides, padding)]
    return (pick([6, 7]), pick([7, 9]), 2), layers


def _dilated(pick: Pick) -> Case:
    return _image(pick, 7), [L.Conv2D(3, 3, dilation_rate=pick([2, 3]), padding=pick(["same", "valid"]))]


def _grouped(pick: Pick) -> Case:
    groups = pick([2, 4])
    return (6, 7, 4), [L.Conv2D(8, 3, pick([1, 2]), pick(["same", "valid"]), groups=groups)]


def _depthwise(pick: Pick) -> Case:
    kernel = pick([3, 2, 5])
    layer = L.DepthwiseConv2D(kernel, pick([1, 2]), pick(["same", "valid"]), depth_multiplier=pick([1, 2]))
    return _image(pick), [layer]


def _transposed(pick: Pick) -> Case:
    return _image(pick, 3), [L.Conv2DTranspose(2, pick([2, 3, 4]), pick([1, 2, 3]), pick(["same", "valid"]))]


def _pool(kind: type, pick: Pick) -> Case:
    size = pick([2, 3, (2, 3)])
    return _image(pick), [kind(size, pick([1, 2, 3, None]) if size != (2, 3) else None, pick(["same", "valid"]))]


def _activation(function: str) -> Callable[[Pick], Case]:
    return lambda pick: ((pick([4, 7]), pick([3, 5])), [L.Activation(function)])


def _skip(join: type) -> Callable[[Pick], Case]:
    class Skip(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.join = L.Dense(4), L.Dense(4), join()

        def call(self, x: Any) -> Any:
            return self.join([self.left(x), self.right(x)])

    return lambda pick: ((pick([3, 6]),), [Skip()])


def _sequence(kind: type) -> Callable[[Pick], Case]:
    return lambda pick: (
        (pick([3, 5]), pick([2, 4])),
        [kind(pick([3, 4]), return_sequences=pick([True, False]), go_backwards=pick([False, True]))],
    )


LAYERS: dict[str, Callable[[Pick], Case]] = {
    "dense": lambda pick: ((pick([3, 8]),), [L.Dense(pick([1, 5]))]),
    "dense-on-sequence": lambda pick: ((pick([3, 4]), 5), [L.Dense(4, activation="relu")]),
    "conv2d": _conv,
    "conv2d-strides": _strided,
    "conv2d-dilated": _dilated,
    "conv2d-groups": _grouped,
    "conv1d": lambda pick: ((pick([9, 10]), 3), [L.Conv1D(4, 3, pick([1, 2]), pick(["same", "valid"]))]),
    "depthwise": _depthwise,
    "depthwise-dilated": lambda pick: (
        _image(pick, 7),
        [L.DepthwiseConv2D(3, pick([1, 2]), pick(["same", "valid"]), dilation_rate=pick([2, (1, 2), (2, 1)]))],
    ),
    "depthwise-strides": lambda pick: (
        _image(pick),
        [
            L.DepthwiseConv2D(pick([3, (2, 3)]), pick([(1, 2), (3, 1), (2, 3)]), pick(["same", "valid"])),
            L.SeparableConv2D(2, 2, pick([(2, 1), (1, 2)]), "same", depth_multiplier=pick([1, 2])),
        ],
    ),
    "separable": lambda pick: (_image(pick), [L.SeparableConv2D(4, 3, pick([1, 2]), pick(["same", "valid"]))]),
    "conv2d-transpose": _transposed,
    "batch-norm": lambda pick: (_image(pick), [L.BatchNormalization()]),
    # Without bias: behind it stands a BatchNormalization, so its true gradient is zero and only rounding is compared.
    "batch-norm-dense": lambda pick: (
        (16, pick([3, 6])),
        [L.Dense(5, use_bias=False), L.BatchNormalization(scale=pick([True, False]))],
    ),
    "batch-norm-frozen": lambda pick: (_image(pick), [L.Conv2D(3, 3), L.BatchNormalization(trainable=False)]),
    "layer-norm": lambda pick: ((pick([4, 5]), 6), [L.LayerNormalization()]),
    "group-norm": lambda pick: ((pick([4, 5]), 5, 6), [L.GroupNormalization(pick([1, 2, 3]))]),
    "max-pool": lambda pick: _pool(L.MaxPooling2D, pick),
    "average-pool": lambda pick: _pool(L.AveragePooling2D, pick),
    "max-pool-1d": lambda pick: ((pick([8, 9]), 3), [L.MaxPooling1D(pick([2, 3]), padding=pick(["same", "valid"]))]),
    "global-average": lambda pick: (_image(pick), [L.GlobalAveragePooling2D()]),
    "global-max": lambda pick: (_image(pick), [L.GlobalMaxPooling2D()]),
    "global-average-1d": lambda pick: ((pick([4, 5]), 3), [L.GlobalAveragePooling1D()]),
    "add": _skip(L.Add),
    "subtract": _skip(L.Subtract),
    "multiply": _skip(L.Multiply),
    "average": _skip(L.Average),
    "maximum": _skip(L.Maximum),
    "minimum": _skip(L.Minimum),
    "concatenate": _skip(L.Concatenate),
    "flatten": lambda pick: (_image(pick), [L.Flatten(), L.Dense(2)]),
    "reshape": lambda pick: ((4, 6), [L.Reshape((3, 8)), L.Permute((2, 1))]),
    "zero-padding": lambda pick: (_image(pick), [L.ZeroPadding2D(((1, 2), (0, 3)))]),
    "cropping": lambda pick: (_image(pick), [L.Cropping2D(((1, 2), (0, 1)))]),
    "up-sampling": lambda pick: (_image(pick), [L.UpSampling2D(pick([2, 3, (1, 2)]))]),
    "up-sampling-bilinear": lambda pick: (_image(pick), [L.UpSampling2D(pick([2, 3]), interpolation="bilinear")]),
    "repeat-vector": lambda pick: ((pick([3, 5]),), [L.RepeatVector(4)]),
    "rescaling": lambda pick: ((pick([3, 5]),), [L.Rescaling(0.5, 1.0)]),
    "relu-layer": lambda pick: ((5, 3), [L.ReLU(max_value=pick([None, 0.5]), negative_slope=pick([0.0, 0.1]))]),
    "leaky-relu": lambda pick: ((5, 3), [L.LeakyReLU(0.2)]),
    "prelu": lambda pick: ((5, 3), [L.PReLU()]),
    "elu": lambda pick: ((5, 3), [L.ELU(alpha=pick([1.0, 0.7]))]),
    "softmax-layer": lambda pick: ((5, 3), [L.Softmax()]),
    "lstm": _sequence(L.LSTM),
    "gru": _sequence(L.GRU),
    "simple-rnn": _sequence(L.SimpleRNN),
    "bidirectional": lambda pick: ((4, 3), [L.Bidirectional(L.GRU(3))]),
    "bidirectional-of-masked": lambda pick: (
        (4, 3),
        [L.Masking(), L.Bidirectional(L.GRU(3, return_sequences=True)), L.LSTM(3)],
    ),
    "time-distributed": lambda pick: ((3, 4), [L.TimeDistributed(L.Dense(2))]),
    "attention": lambda pick: ((4, 6), [SelfAttention(pick([1, 2]))]),
    "conv-relu-pool": lambda pick: (
        _image(pick, 12),
        [
            L.Conv2D(4, pick([3, 1, (2, 3), 5]), padding=pick(["valid", "same"]), activation=pick(["relu", None])),
            L.MaxPooling2D(pick([2, 3])),
            L.Conv2D(3, 2, activation="relu", padding="same", use_bias=pick([True, False])),
            L.MaxPooling2D(2, padding=pick(["valid", "same"])),
        ],
    ),
} | {
    f"activation-{name}": _activation(name)
    for name in (
        *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "tanh", "softmax", "log_softmax", "silu"),
        *("hard_silu", "hard_sigmoid", "softplus", "softsign", "exponential", "mish"),
    )
}


class SelfAttention(keras.layers.Layer):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.inner = L.MultiHeadAttention(heads, 3)

    def build(self, shape: Any) -> None:
        self.inner.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.inner(x, x)


class Ramp(keras.layers.Layer):
    """Multiplies its input by a trainable weight an element, so that the layer behind it must hand back a gradient."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=shape[1:], initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale


def model_of(case: Case) -> Any:
    """Returns the built model: input, `Ramp`, the case's layers."""
    shape, layers = case
    return keras.Sequential([keras.Input(shape), Ramp(), *layers])
