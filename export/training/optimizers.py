"""Optimizers inside the program, each a record of functions; the arithmetic is Keras 3's, in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import ExportError, nearest

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class Optimizer:
    """One row of `OPTIMIZERS`.

    Attributes:
        slots: Names of the state tensors it keeps for every trainable weight; all start at zero.
        step: Weight, gradient, its slots, learning rate, steps done before this one (float32), momentum → new weight
            and new slots.
    """

    slots: tuple[str, ...]
    step: Callable[[Any, Any, Sequence[Any], Any, Any, float], tuple[Any, list[Any]]]


def _sgd(w: Any, g: Any, slots: Sequence[Any], rate: Any, done: Any, momentum: float) -> tuple[Any, list[Any]]:
    return w - g * rate, []


def _momentum(w: Any, g: Any, slots: Sequence[Any], rate: Any, done: Any, momentum: float) -> tuple[Any, list[Any]]:
    """Heavy ball (Polyak, 1964), the learning rate inside the velocity."""
    velocity = slots[0] * momentum - g * rate
    return w + velocity, [velocity]


def _adam(w: Any, g: Any, slots: Sequence[Any], rate: Any, done: Any, momentum: float) -> tuple[Any, list[Any]]:
    """Adam (Kingma & Ba, ICLR 2015), bias correction folded into the rate."""
    import tensorflow as tf

    first, second = slots
    t = done + 1.0
    alpha = rate * tf.sqrt(1.0 - tf.pow(BETA_2, t)) / (1.0 - tf.pow(BETA_1, t))
    first = first + (g - first) * (1.0 - BETA_1)
    second = second + (g * g - second) * (1.0 - BETA_2)
    return w - first * alpha / (tf.sqrt(second) + EPSILON), [first, second]


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer((), _sgd),
    "momentum": Optimizer(("velocity",), _momentum),
    "adam": Optimizer(("first_moment", "second_moment"), _adam),
}


def optimizer(name: str) -> Optimizer:
    """Returns one row of `OPTIMIZERS`.

    Raises:
        ExportError: There is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise ExportError(f"unknown optimizer '{name}'.{nearest(name, OPTIMIZERS)}")
    return OPTIMIZERS[name]


def clipped(gradients: Sequence[Any], clip_norm: float) -> list[Any]:
    """Returns the gradients scaled down to a global L2 norm of at most ``clip_norm``; 0 leaves them alone.

    One vectorised square-sum a tensor, so that no delegate partition is split.
    """
    import tensorflow as tf

    if not clip_norm:
        return list(gradients)
    squares = [tf.reduce_sum(tf.reshape(g * g, [-1])) for g in gradients]
    norm = tf.sqrt(tf.add_n(squares)) if len(squares) == 1 else tf.sqrt(sum(squares[1:], squares[0]))
    scale = tf.minimum(clip_norm / tf.maximum(norm, 1e-30), 1.0)
    return [g * scale for g in gradients]
