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
    """Draws numbers, by a generator of its own or by Keras' global one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.generator = kind, keras.random.SeedGenerator(1) if kind == "seeded" else None

    def call(self, x: Any, training: bool = False) -> Any:
        import tensorflow as tf

        if not training:
            return x
        if self.kind == "tf":
            return x + 0.2 * tf.random.normal(tf.shape(x))
        if self.kind == "fixed":  # the same numbers every time, as their author wants it; phones have none
            return x + keras.random.normal((), seed=3)
        return x + 0.2 * keras.random.normal(keras.ops.shape(x), seed=self.generator)


class DropPath(L.Layer):
    """Stochastic depth: an example's branch is kept or not."""

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        shape = (keras.ops.shape(x)[0], *[1] * (len(x.shape) - 1))
        return x / 0.7 * keras.ops.floor(0.7 + keras.random.uniform(shape))


class Twice(L.Layer):
    """One layer with weights, called twice."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.inside = inside

    def build(self, shape: Any) -> None:
        self.inside.build(shape)

    def call(self, x: Any) -> Any:
        return self.inside(self.inside(x))


class Gate(L.Layer):
    """A branch beside what came in, put together as Keras' merging layers do."""

    def __init__(self, inside: Any, merge: Any) -> None:
        super().__init__()
        self.inside, self.merge = inside, merge

    def build(self, shape: Any) -> None:
        self.inside.build(shape)

    def call(self, x: Any) -> Any:
        return self.merge([x, self.inside(x)])


class Product(L.Layer):
    """An operation without a gradient on phones."""

    def call(self, x: Any) -> Any:
        return keras.ops.prod(x, axis=-1, keepdims=True) + x


@dataclass(frozen=True)
class Production:
    """One kind of layer.

    Attributes:
        ranks: Of inputs it takes; 0 for tokens.
        make: Draws one, given the shape of its input.
        trains: Whether a phone can train it.
        first: Whether it must stand in front of everything that trains.
    """

    ranks: tuple[int, ...]
    make: Callable[[Pick, tuple[int, ...]], Any]
    trains: bool = True
    first: bool = False


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
        groups=2 if shape[-1] % 2 == 0 and pick([False, False, True]) else 1,
        activation=pick(ACTIVATIONS),
        **_extras(pick),
    )


def _recurrent(pick: Pick, shape: tuple[int, ...]) -> Any:
    kind, drops = pick([L.LSTM, L.GRU, L.SimpleRNN]), pick([(0.0, 0.0), (0.0, 0.0), (0.3, 0.0), (0.2, 0.3)])
    extra = {"reset_after": pick([True, False])} if kind is L.GRU else {}
    layer = kind(
        3,
        activation=pick(["tanh", "relu", "sigmoid"]),
        return_sequences=pick([True, False]),
        go_backwards=pick([False, False, True]),
        dropout=drops[0],
        recurrent_dropout=drops[1],
        **extra,
    )
    return L.Bidirectional(layer, merge_mode=pick(["concat", "sum", "ave"])) if pick([False, False, True]) else layer


def _depthwise(pick: Pick, shape: tuple[int, ...]) -> Any:
    strides = pick([1, 2, (1, 2), (2, 1)])
    dilation = 1 if isinstance(strides, tuple) else pick([1, 1, 2])
    padding = pick(["same", "valid"])
    return L.DepthwiseConv2D(pick([2, 3]), strides, padding, dilation_rate=dilation, activation=pick(HARMLESS))


def _separable(pick: Pick, shape: tuple[int, ...]) -> Any:
    return L.SeparableConv2D(3, 2, pick([1, 2]), "same", depth_multiplier=pick([1, 2]), activation=pick(HARMLESS))


def _transpose2d(pick: Pick, shape: tuple[int, ...]) -> Any:
    return L.Conv2DTranspose(2, pick([2, 3]), pick([1, 2, (1, 2)]), pick(["same", "valid"]), activation=pick(HARMLESS))


def _norm(pick: Pick, shape: tuple[int, ...]) -> Any:
    kinds = [L.LayerNormalization, L.RMSNormalization, L.UnitNormalization, lambda: L.GroupNormalization(1)]
    return pick(kinds)()


def _merged(pick: Pick, shape: tuple[int, ...]) -> Any:
    kinds = [L.Add, L.Multiply, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Concatenate]
    return Gate(L.Dense(shape[-1], pick(HARMLESS)), pick(kinds)())


def _nested(pick: Pick, shape: tuple[int, ...]) -> Any:
    inside = [keras.Input(shape), L.Dense(3, pick(ACTIVATIONS)), L.Dropout(0.2), L.BatchNormalization()]
    return keras.Sequential(inside, name=pick(["inner", "nest"]))


def _augmented(pick: Pick, shape: tuple[int, ...]) -> Any:
    fill, how = pick(["reflect", "wrap", "constant", "nearest"]), pick(["bilinear", "nearest"])
    kinds = [L.RandomRotation, lambda f, **kw: L.RandomZoom(f, 0.2, **kw), lambda f, **kw: L.RandomShear(f, f, **kw)]
    kinds += [lambda f, **kw: L.RandomTranslation(f, 0.3, **kw)]
    return pick(kinds)(0.3, fill_mode=fill, interpolation=how, fill_value=pick([0.0, 0.5]))


def _coloured(pick: Pick, shape: tuple[int, ...]) -> Any:
    return pick([L.RandomContrast, L.RandomBrightness])(0.4, value_range=(-3.0, 3.0))


def _attention(pick: Pick, shape: tuple[int, ...]) -> Any:
    return SelfAttention(pick([1, 2]), pick([0.0, 0.2]))


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
    "attention": Production((2,), _attention),
    "time-distributed": Production((2,), lambda pick, _: L.TimeDistributed(L.Dense(3, pick(ACTIVATIONS)))),
    "einsum": Production((2,), lambda pick, s: L.EinsumDense("abc,cd->abd", (s[0], 4), activation=pick(ACTIVATIONS))),
    "permute": Production((2,), lambda pick, _: L.Permute((2, 1))),
    "spatial-dropout1d": Production((2,), lambda pick, _: L.SpatialDropout1D(0.3)),
    "masking": Production((2,), lambda pick, _: L.Masking(-2.0)),
    "up1d": Production((2,), lambda pick, _: L.UpSampling1D(2)),
    "conv2d": Production((3,), _conv2d),
    "depthwise": Production((3,), _depthwise),
    "separable": Production((3,), _separable),
    "transpose": Production((3,), _transpose2d),
    "pool": Production(
        (3,), lambda pick, _: pick([L.MaxPooling2D, L.AveragePooling2D])(2, pick([1, 2, (1, 2)]), padding="same")
    ),
    "global": Production((3,), lambda pick, _: pick([L.GlobalMaxPooling2D, L.GlobalAveragePooling2D])()),
    "padding": Production((3,), lambda pick, _: L.ZeroPadding2D(1)),
    "up": Production((3,), lambda pick, _: L.UpSampling2D(2, interpolation=pick(["nearest", "bilinear"]))),
    "spatial-dropout": Production((3,), lambda pick, _: L.SpatialDropout2D(0.3)),
    "group-norm": Production((3,), lambda pick, _: L.GroupNormalization(1)),
    "flatten": Production((2, 3), lambda pick, _: L.Flatten()),
    "noise": Production((1, 2, 3), lambda pick, _: pick([L.GaussianNoise, L.GaussianDropout, L.AlphaDropout])(0.3)),
    "own-noise": Production((1, 2, 3), lambda pick, _: OwnNoise(pick(["seeded", "global", "tf"]))),
    "drop-path": Production((1, 2, 3), lambda pick, _: DropPath()),
    "flip": Production((3,), lambda pick, _: L.RandomFlip(pick(["horizontal", "vertical"]))),
    "augmented": Production((3,), _augmented, first=True),
    "coloured": Production((3,), _coloured),
    "crop": Production((3,), lambda pick, s: L.RandomCrop(max(s[0] - 1, 1), max(s[1] - 2, 1)), first=True),
    "twice": Production((1, 2, 3), lambda pick, s: Twice(L.Dense(s[-1], pick(HARMLESS)))),
    "merged": Production((1, 2, 3), _merged),
    "nested": Production((1, 2, 3), _nested),
    "norm": Production((1, 2, 3), _norm),
    "leaky": Production((1, 2, 3), lambda pick, _: pick([L.LeakyReLU(0.2), L.ELU(0.7), L.Softmax()])),
    "cropping1d": Production((2,), lambda pick, _: L.Cropping1D((1, 0))),
    "padding1d": Production((2,), lambda pick, _: L.ZeroPadding1D((1, 2))),
    "transpose1d": Production((2,), lambda pick, _: L.Conv1DTranspose(2, 3, pick([1, 2]), pick(["same", "valid"]))),
    "depthwise1d": Production((2,), lambda pick, _: L.DepthwiseConv1D(2, pick([1, 2]), pick(["same", "valid"]))),
    "cropping": Production((3,), lambda pick, _: L.Cropping2D(((1, 0), (0, 1)))),
    "embedding": Production((0,), lambda pick, _: L.Embedding(11, pick([3, 4]), mask_zero=pick([False, True]))),
    "fixed-noise": Production((1, 2, 3), lambda pick, _: OwnNoise("fixed"), trains=False),
    "product": Production((1, 2, 3), lambda pick, _: Product(), trains=False),
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
    shape = pick([*SHAPES, (5,)])
    dtype = pick(["float32", "float32", "int32" if len(shape) == 1 else "uint8"])
    x = start = keras.Input(shape)
    x = L.Rescaling(1 / 255)(x) if dtype == "uint8" else x
    names: list[str] = []
    called: set[str] = set()
    refused = pick([False, False, False, False, False, True])
    for _ in range(pick(range(1, most + 1))):
        shape, front = tuple(x.shape[1:]), all(GRAMMAR[n].first or n in ("flip", "coloured") for n in names)
        rank = 0 if dtype == "int32" and not names else len(shape)
        rows = [n for n, p in GRAMMAR.items() if rank in p.ranks and (refused or p.trains) and (front or not p.first)]
        name = pick(rows)
        try:
            layer = GRAMMAR[name].make(pick, shape)
            if layer.name in called:  # Keras has each name once
                continue
            x = layer(x)
        except ValueError:  # a kernel larger than what is left of the picture
            continue
        names.append(name)
        called.add(layer.name)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    head = pick(["logits", "softmax", "one"])
    across = ["sparse-categorical-crossentropy", "sparse-categorical-crossentropy", "categorical-crossentropy"]
    loss = pick(["binary-crossentropy", "mse"] if head == "one" else [*across, "mse", "mae", "huber"])
    x = L.Dense(1 if head == "one" else 3, "softmax" if head == "softmax" else None)(x)
    options = {
        "batch_size": pick([2, 3, 4]),
        "loss": loss,
        "from_logits": head != "softmax",
        "optimizer": pick(["sgd", "momentum", "adam"]),
        "clip_norm": pick([0.0, 0.5]),
        "label_smoothing": pick([0.0, 0.1]) if "crossentropy" in loss else 0.0,
        "proximal": pick([False, True]),
        "correction": pick([False, True]),
        "accumulate": pick([False, False, True]),
        "input_dtype": dtype,
    }
    return Animal(tuple(names), keras.Model(start, x, name="animal"), options)


def by_number(number: int) -> Pick:
    """Returns a seeded ``pick``."""
    rng = np.random.default_rng(number)
    return lambda options: options[int(rng.integers(len(options)))]
