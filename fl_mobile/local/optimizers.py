"""Local optimizers, one row each: state per weight, a step, how far it carries, the Keras optimizer it equals.

The arithmetic is Keras 3's, in its order, so that engines, the phone's program and Keras agree to the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import check_known
from fl_mobile.table import Table

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class LocalOptimizer:
    """One row of `OPTIMIZERS`.

    Attributes:
        slots: Names of the state tensors it keeps for every trainable weight; all start at zero.
        step: Weight, gradient, its slots, learning rate, steps done before this one (``float32``), momentum → new
            weight and new slots. Elementwise: the weights of many devices may come stacked on a leading axis.
        sgd_steps: Number of steps, momentum → how far they carry, counted in SGD steps: the ‖a‖₁ of Wang et al.,
            "Tackling the objective inconsistency problem", NeurIPS 2020, section 3.
        keras: Learning rate, momentum → the Keras optimizer it equals: what tests compare it with.
    """

    slots: tuple[str, ...]
    step: Callable[[Any, Any, Sequence[Any], Any, Any, float], tuple[Any, list[Any]]]
    sgd_steps: Callable[[int, float], float]
    keras: Callable[[float, float], Any]


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


def _each_counts_once(steps: int, momentum: float) -> float:
    return float(steps)


def _steps_add_up(steps: int, momentum: float) -> float:
    return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


def _keras_sgd(rate: float, momentum: float) -> Any:
    import keras

    return keras.optimizers.SGD(rate)


def _keras_momentum(rate: float, momentum: float) -> Any:
    import keras

    return keras.optimizers.SGD(rate, momentum=momentum)


def _keras_adam(rate: float, momentum: float) -> Any:
    import keras

    return keras.optimizers.Adam(rate, BETA_1, BETA_2, EPSILON)


OPTIMIZERS: Table[LocalOptimizer] = Table(
    "optimizer",
    LocalOptimizer,
    {
        "sgd": LocalOptimizer(slots=(), step=_sgd, sgd_steps=_each_counts_once, keras=_keras_sgd),
        "momentum": LocalOptimizer(slots=("velocity",), step=_momentum, sgd_steps=_steps_add_up, keras=_keras_momentum),
        "adam": LocalOptimizer(
            slots=("first_moment", "second_moment"), step=_adam, sgd_steps=_each_counts_once, keras=_keras_adam
        ),
    },
)


def local_optimizer(name: str) -> LocalOptimizer:
    """Returns one row of `OPTIMIZERS`.

    Raises:
        ConfigError: There is no such optimizer.
    """
    check_known("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]
