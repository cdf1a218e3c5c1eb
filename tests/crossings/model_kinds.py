"""Small models of the kinds that people federate: builder, loss, examples, and whether training refuses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.models.private_api import restart_automatic_names

FEATURES, PICTURES, TOKENS, SEQUENCES = "features", "pictures", "tokens", "sequences"
_RNG = np.random.default_rng(11)
EXAMPLES = {
    FEATURES: _RNG.standard_normal((16, 6)).astype(np.float32),
    PICTURES: _RNG.integers(0, 256, (16, 6, 5, 2)).astype(np.uint8),
    TOKENS: np.where(np.arange(5) < _RNG.integers(2, 6, (16, 1)), _RNG.integers(1, 12, (16, 5)), 0).astype(np.float32),
    SEQUENCES: np.where(np.arange(4)[:, None] < _RNG.integers(2, 5, (16, 1, 1)), _RNG.random((16, 4, 3)), 0).astype(
        np.float32
    ),
}


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        layers: ``keras`` → the layers between input and output; the last one is the head.
        x: Row of `EXAMPLES`.
        loss: Row of ``LOSSES``; labels are as many as the head has outputs, at least 2.
    """

    layers: Callable[[Any], list[Any]]
    x: str = FEATURES
    loss: str = "sparse-categorical-crossentropy"

    def build(self) -> Any:
        import keras

        keras.utils.set_random_seed(7)
        inputs = out = keras.Input(EXAMPLES[self.x].shape[1:])
        for layer in self.layers(keras):
            out = layer(out)
        return keras.Model(inputs, out)


def _batch_norm(k: Any) -> list[Any]:
    L = k.layers
    norm = L.BatchNormalization(momentum=0.8)
    return [L.Rescaling(1 / 255), L.Conv2D(3, 3), norm, L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(3)]


def _flips(k: Any) -> list[Any]:
    L = k.layers
    random = [L.RandomFlip(), L.RandomTranslation(0.2, 0.2), L.RandomContrast(0.2)]
    return [*random, L.Rescaling(1 / 255), L.Flatten(), L.Dense(3)]


def _regularised(k: Any) -> list[Any]:
    r, L = k.regularizers, k.layers
    first = L.Dense(5, "relu", kernel_regularizer="l1", bias_regularizer=r.L2(0.05))
    return [first, L.Dense(3, kernel_regularizer=r.L1L2(0.02, 0.03))]


def _activity_losses(k: Any) -> list[Any]:
    r, L = k.regularizers, k.layers
    return [L.Dense(5, "relu", activity_regularizer=r.L2(0.05)), L.ActivityRegularization(l1=0.02), L.Dense(3)]


def _constrained(k: Any) -> list[Any]:
    c, L = k.constraints, k.layers
    kernel = {"kernel_constraint": c.MaxNorm(0.5, axis=[0, 1, 2]), "bias_constraint": c.NonNeg()}
    return [L.Rescaling(1 / 255), L.Conv2D(3, 3, **kernel), L.Flatten(), L.Dense(3, kernel_constraint=c.UnitNorm())]


def _constrained_dense(k: Any) -> list[Any]:
    c, L = k.constraints, k.layers
    first = L.Dense(5, "relu", kernel_constraint=c.MaxNorm(0.4), bias_constraint=c.NonNeg())
    return [first, L.Dense(3, kernel_constraint=c.MinMaxNorm(0.2, 0.6, rate=0.5))]


def _frozen(k: Any) -> list[Any]:
    dense = k.layers.Dense(6, "relu", trainable=False)
    return [dense, k.layers.Dense(4, "relu"), k.layers.Dense(3)]


def _lora(k: Any) -> list[Any]:
    class Lora(k.layers.Dense):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.enable_lora(2, a_initializer="ones", b_initializer=k.initializers.RandomNormal(seed=1))

    Lora.__name__ = "Dense"  # which it is
    return [Lora(6, "relu"), k.layers.Dense(3)]


def _shared(k: Any) -> list[Any]:
    dense = k.layers.Dense(6, "tanh")
    return [dense, dense, k.layers.Dense(3)]


def _own_loss(k: Any) -> list[Any]:
    class Sparse(k.layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(0.02 * k.ops.mean(k.ops.abs(x)))
            return x

    return [k.layers.Dense(6, "relu"), Sparse(), k.layers.Dense(3)]


def _attention(k: Any) -> list[Any]:
    attention = k.layers.MultiHeadAttention(2, 2, dropout=0.3)
    return [lambda x: attention(x, x), k.layers.GlobalAveragePooling1D(), k.layers.Dense(3)]


def _own_draws(k: Any) -> list[Any]:
    class Noise(k.layers.Layer):
        def __init__(self, seed: int | None) -> None:
            super().__init__()
            self.kept = k.random.SeedGenerator(seed) if seed is not None else None

        def call(self, x: Any, training: bool = False) -> Any:
            return x + 0.3 * k.random.normal(k.ops.shape(x), seed=self.kept) if training else x

    return [Noise(3), k.layers.Dense(5, "relu"), Noise(None), k.layers.Dense(3)]


def _stochastic_depth(k: Any) -> list[Any]:
    class StochasticDepth(k.layers.Layer):
        """As Keras' ConvNeXt has it: a branch is kept or not, example by example."""

        def __init__(self) -> None:
            super().__init__()
            self.draws = k.random.SeedGenerator(3)

        def call(self, x: Any, training: bool = False) -> Any:
            if not training:
                return x
            drawn = k.random.uniform((k.ops.shape(x)[0], 1), seed=self.draws)
            return x / 0.6 * k.ops.floor(0.6 + drawn)

    return [k.layers.Dense(5, "relu"), StochasticDepth(), k.layers.Dense(3)]


def _own_gradient(k: Any) -> list[Any]:
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sign(x: Any) -> Any:
        return tf.sign(x), lambda g: g

    class Binary(k.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

        def call(self, x: Any) -> Any:
            return k.ops.matmul(x, sign(tf.identity(self.kernel.value)))

    return [Binary(), k.layers.Dense(3)]


def _scalar(k: Any) -> list[Any]:
    class Scale(k.layers.Layer):
        def build(self, _: Any) -> None:
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def call(self, x: Any) -> Any:
            return x * self.scale

    return [k.layers.Dense(5, "tanh"), Scale(), k.layers.Dense(3)]


def _many_at_once(k: Any) -> list[Any]:
    c, r, L = k.constraints, k.regularizers, k.layers
    first = L.Dense(5, "relu", kernel_constraint=c.MaxNorm(0.4), kernel_regularizer=r.L2(0.05))
    shared = L.Dense(5, "tanh", activity_regularizer=r.L1(0.01))
    return [first, L.BatchNormalization(momentum=0.8), shared, shared, L.Dropout(0.3), L.Dense(1, "sigmoid")]


def _unused(k: Any) -> list[Any]:
    class Half(k.layers.Layer):
        def build(self, shape: Any) -> None:
            self.used = self.add_weight(shape=(shape[-1], 4), name="used")
            self.unused = self.add_weight(shape=(2, 2), name="unused")

        def call(self, x: Any) -> Any:
            return k.ops.matmul(x, self.used)

    return [Half(), k.layers.Dense(3)]


KINDS: dict[str, Kind] = {
    "one logit": Kind(lambda k: [k.layers.Dense(4, "relu"), k.layers.Dense(1)], loss="binary-crossentropy"),
    "one logit that starts at zero": Kind(
        lambda k: [k.layers.Dense(4, "relu"), k.layers.Dense(1, kernel_initializer="zeros")], loss="binary-crossentropy"
    ),
    "sigmoid": Kind(lambda k: [k.layers.Dense(1, "sigmoid")], loss="binary-crossentropy"),
    "sigmoid, mse": Kind(lambda k: [k.layers.Dense(4, "relu"), k.layers.Dense(1, "sigmoid")], loss="mse"),
    "softmax": Kind(lambda k: [k.layers.Dense(4, "relu"), k.layers.Dense(3, "softmax")]),
    "batch norm": Kind(_batch_norm, x=PICTURES),
    "layer norm": Kind(lambda k: [k.layers.Dense(5), k.layers.LayerNormalization(), k.layers.Dense(3)]),
    "dropout": Kind(lambda k: [k.layers.Dense(8, "relu"), k.layers.Dropout(0.4), k.layers.Dense(3)]),
    "noise": Kind(lambda k: [k.layers.GaussianNoise(0.5), k.layers.GaussianDropout(0.3), k.layers.Dense(3)]),
    "own draws": Kind(_own_draws),
    "flips": Kind(_flips, x=PICTURES),
    "constraints": Kind(_constrained, x=PICTURES),
    "constraints, dense": Kind(_constrained_dense),
    "L1 and L2": Kind(_regularised),
    "activity losses": Kind(_activity_losses),
    "a loss of its own": Kind(_own_loss),
    "frozen layer": Kind(_frozen),
    "LoRA": Kind(_lora),
    "shared layer": Kind(_shared),
    "unused weight": Kind(_unused),
    "scalar weight": Kind(_scalar),
    "own gradient": Kind(_own_gradient),
    "stochastic depth": Kind(_stochastic_depth),
    "masked LSTM": Kind(lambda k: [k.layers.Masking(), k.layers.LSTM(4), k.layers.Dense(3)], x=SEQUENCES),
    "GRU with dropout": Kind(lambda k: [k.layers.GRU(4, dropout=0.3), k.layers.Dense(3)], x=SEQUENCES),
    "embedding": Kind(
        lambda k: [k.layers.Embedding(12, 4, mask_zero=True), k.layers.GlobalAveragePooling1D(), k.layers.Dense(3)],
        x=TOKENS,
    ),
    "attention": Kind(_attention, x=SEQUENCES),
    "many at once": Kind(_many_at_once, loss="binary-crossentropy"),
}


def build_kind(name: str) -> Any:
    """Returns a new model of a kind, with the same paths every time; picklable with its name, for other processes."""
    restart_automatic_names()
    return KINDS[name].build()


def two_heads(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """Returns a model with two outputs, which no engine trains."""
    import keras

    inputs = keras.Input(input_shape)
    flat = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, [keras.layers.Dense(num_classes)(flat), keras.layers.Dense(2)(flat)])


def half_precision(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """Returns a model that computes in 16 bits, which no engine trains."""
    import keras

    L = keras.layers
    half = L.Dense(4, "relu", dtype="mixed_float16", name="half")
    return keras.Sequential([L.Input(input_shape), L.Flatten(), half, L.Dense(num_classes)])
