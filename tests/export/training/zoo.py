"""Models drawn from a grammar of layers: what people stack, with sizes, activations and options by chance.

A production says on which ranks of input it stands (1 vector, 2 sequence, 3 picture, without the batch) and whether a
phone can train it; a model of nothing but such layers must be built, and equal Keras. ``pick(options)`` draws, so the
same grammar serves hypothesis and a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Pick = Callable[[Sequence[Any]], Any]
L = keras.layers

ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "tanh", "softmax", "silu", "hard_silu"),
    *("hard_sigmoid", "softplus", "softsign", "mish", "linear"),
)
HARMLESS = ("relu", "tanh", "elu", "silu", "linear")
SHAPES = ((5,), (4, 3), (6, 4), (6, 6, 2), (9, 7, 3))


@keras.saving.register_keras_serializable("zoo")
class StraightThrough(L.Layer):
    """Signs forwards, the gradient of the identity backwards."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def sign(x: Any) -> Any:
            return tf.sign(x), lambda g: g

        return sign(x) * 0.5 + x


class SelfAttention(L.Layer):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, heads: int, dropout: float) -> None:
        super().__init__()
        self.inner = L.MultiHeadAttention(heads, 2, dropout=dropout)

    def build(self, shape: Any) -> None:
        self.inner.build(shape, shape)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.inner(x, x, training=training)


class Residual(L.Layer):
    """What stands inside, added to what came in."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.inside = inside

    def build(self, shape: Any) -> None:
        self.inside.build(shape)

    def call(self, x: Any) -> Any:
        return x + self.inside(x)


class OwnNoise(L.Layer):
    """Draws numbers a phone cannot."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


class Product(L.Layer):
    """An operation without a gradient on phones."""

    def call(self, x: Any) -> Any:
        return keras.ops.prod(x, axis=-1, keepdims=True) + x


@dataclass(frozen=True)
class Production:
    """One kind of layer.

    Attributes:
        ranks: Of inputs it takes.
        make: Draws one, given the shape of its input.
        trains: Whether a phone can train it.
    """

    ranks: tuple[int, ...]
    make: Callable[[Pick, tuple[int, ...]], Any]
    trains: bool = True


def _extras(pick: Pick) -> dict[str, Any]:
    """Bias, regulariser, constraint and freezing of a layer with a kernel."""
    return {
        "use_bias": pick([True, False]),
        "kernel_regularizer": pick([None, None, None, "l2", "l1"]),
        "kernel_constraint": pick([None, None, None, keras.constraints.MaxNorm(0.8), "non_neg"]),
        "activity_regularizer": pick([None, None, None, keras.regularizers.L2(0.01)]),
        "trainable": pick([True, True, True, False]),
    }


def _dense(pick: Pick, shape: tuple[int, ...]) -> Any:
    return L.Dense(pick([3, 4, 6]), pick(ACTIVATIONS), **_extras(pick))


def _conv2d(pick: Pick, shape: tuple[int, ...]) -> Any:
    strides, dilation = pick([(1, 1), (1, 1), (2, 2), (1, 2), (2, 1)]), pick([1, 1, 2])
    return L.Conv2D(
        pick([2, 4]),
        pick([1, 2, 3, (3, 2)]),
        strides,
        pick(["same", "valid"]),
        dilation_rate=dilation if strides == (1, 1) else 1,
        activation=pick(ACTIVATIONS),
        **_extras(pick),
    )


def _recurrent(pick: Pick, shape: tuple[int, ...]) -> Any:
    kind = pick([L.LSTM, L.GRU, L.SimpleRNN])
    layer = kind(3, return_sequences=pick([True, False]), dropout=pick([0.0, 0.0, 0.3]))
    return L.Bidirectional(layer) if pick([False, False, True]) else layer


GRAMMAR: dict[str, Production] = {
    "dense": Production((1, 2, 3), _dense),
    "activation": Production((1, 2, 3), lambda pick, _: L.Activation(pick(ACTIVATIONS))),
    "dropout": Production((1, 2, 3), lambda pick, _: L.Dropout(pick([0.2, 0.5]))),
    "batch-norm": Production((1, 2, 3), lambda pick, _: L.BatchNormalization(scale=pick([True, False]))),
    "layer-norm": Production((1, 2, 3), lambda pick, _: L.LayerNormalization()),
    "relu": Production((1, 2, 3), lambda pick, _: L.ReLU(pick([None, 1.0, 6.0]), pick([0.0, 0.1]))),
    "prelu": Production((1, 2, 3), lambda pick, _: L.PReLU()),
    "rescaling": Production((1, 2, 3), lambda pick, _: L.Rescaling(pick([0.5, 2.0]), 0.1)),
    "residual": Production((1, 2, 3), lambda pick, s: Residual(L.Dense(s[-1], pick(HARMLESS)))),
    "straight-through": Production((1, 2, 3), lambda pick, _: StraightThrough()),
    "reshape": Production((1,), lambda pick, s: L.Reshape((1, *s))),
    "repeat": Production((1,), lambda pick, _: L.RepeatVector(3)),
    "conv1d": Production(
        (2,), lambda pick, _: L.Conv1D(4, 2, pick([1, 2]), pick(["same", "valid", "causal"]), **_extras(pick))
    ),
    "separable1d": Production((2,), lambda pick, _: L.SeparableConv1D(3, 2, padding="same")),
    "pool1d": Production((2,), lambda pick, _: pick([L.MaxPooling1D, L.AveragePooling1D])(2, padding="same")),
    "global1d": Production((2,), lambda pick, _: pick([L.GlobalMaxPooling1D, L.GlobalAveragePooling1D])()),
    "recurrent": Production((2,), _recurrent),
    "attention": Production((2,), lambda pick, _: SelfAttention(pick([1, 2]), pick([0.0, 0.2]))),
    "time-distributed": Production((2,), lambda pick, _: L.TimeDistributed(L.Dense(3, pick(ACTIVATIONS)))),
    "einsum": Production((2,), lambda pick, s: L.EinsumDense("abc,cd->abd", (s[0], 4), activation=pick(ACTIVATIONS))),
    "permute": Production((2,), lambda pick, _: L.Permute((2, 1))),
    "spatial-dropout1d": Production((2,), lambda pick, _: L.SpatialDropout1D(0.3)),
    "masking": Production((2,), lambda pick, _: L.Masking(-2.0)),
    "up1d": Production((2,), lambda pick, _: L.UpSampling1D(2)),
    "conv2d": Production((3,), _conv2d),
    "depthwise": Production(
        (3,), lambda pick, _: L.DepthwiseConv2D(pick([2, 3]), pick([1, 2]), "same", activation=pick(HARMLESS))
    ),
    "separable": Production((3,), lambda pick, _: L.SeparableConv2D(3, 2, pick([1, 2]), "same")),
    "transpose": Production((3,), lambda pick, _: L.Conv2DTranspose(2, 2, pick([1, 2]), pick(["same", "valid"]))),
    "pool": Production(
        (3,), lambda pick, _: pick([L.MaxPooling2D, L.AveragePooling2D])(2, pick([1, 2, (1, 2)]), padding="same")
    ),
    "global": Production((3,), lambda pick, _: pick([L.GlobalMaxPooling2D, L.GlobalAveragePooling2D])()),
    "padding": Production((3,), lambda pick, _: L.ZeroPadding2D(1)),
    "up": Production((3,), lambda pick, _: L.UpSampling2D(2, interpolation=pick(["nearest", "bilinear"]))),
    "spatial-dropout": Production((3,), lambda pick, _: L.SpatialDropout2D(0.3)),
    "group-norm": Production((3,), lambda pick, _: L.GroupNormalization(1)),
    "flatten": Production((2, 3), lambda pick, _: L.Flatten()),
    "noise": Production((1, 2, 3), lambda pick, _: L.GaussianNoise(0.1), trains=False),
    "own-noise": Production((1, 2, 3), lambda pick, _: OwnNoise(), trains=False),
    "product": Production((1, 2, 3), lambda pick, _: Product(), trains=False),
    "flip": Production((3,), lambda pick, _: L.RandomFlip(), trains=False),
}


@dataclass(frozen=True)
class Animal:
    """A model of the zoo.

    Attributes:
        layers: Rows of `GRAMMAR`, as drawn.
        model: Built.
        options: Of `build_training_program`.
    """

    layers: tuple[str, ...]
    model: Any
    options: dict[str, Any]

    @property
    def trains(self) -> bool:
        """Whether a phone must be able to train it."""
        return all(GRAMMAR[name].trains for name in self.layers)

    def __str__(self) -> str:
        return f"{' → '.join(self.layers)} {self.options}"


def draw(pick: Pick, *, most: int = 5) -> Animal:
    """Draws a model and how it is trained; about one in six holds a layer that phones refuse."""
    keras.utils.set_random_seed(0)
    x = start = keras.Input(pick(SHAPES))
    names: list[str] = []
    refused = pick([False, False, False, False, False, True])
    for _ in range(pick(range(1, most + 1))):
        shape = tuple(x.shape[1:])
        name = pick([n for n, p in GRAMMAR.items() if len(shape) in p.ranks and (refused or p.trains)])
        layer = GRAMMAR[name].make(pick, shape)
        try:
            x = layer(x)
        except ValueError:  # a kernel larger than what is left of the picture
            continue
        names.append(name)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    head = pick(["logits", "softmax", "one"])
    loss = {"one": "binary-crossentropy"}.get(head) or pick(["sparse-categorical-crossentropy", "mse"])
    x = L.Dense(1 if head == "one" else 3, "softmax" if head == "softmax" else None)(x)
    options = {
        "batch_size": pick([2, 3, 4]),
        "loss": loss,
        "from_logits": head != "softmax",
        "optimizer": pick(["sgd", "momentum", "adam"]),
        "clip_norm": pick([0.0, 0.5]),
        "proximal": pick([False, True]),
        "correction": pick([False, True]),
        "accumulate": pick([False, False, True]),
    }
    return Animal(tuple(names), keras.Model(start, x, name="animal"), options)


def by_number(number: int) -> Pick:
    """Returns a seeded ``pick``."""
    rng = np.random.default_rng(number)
    return lambda options: options[int(rng.integers(len(options)))]
