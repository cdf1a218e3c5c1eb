"""Losses and metrics of a batch, spelled as the Keras engine spells them, so that both train on the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import ExportError, nearest


@dataclass(frozen=True)
class Objective:
    """Labels, outputs → ``float32[batch]``; how one example is judged.

    Attributes:
        name: Row of `LOSSES`.
        per_example: ``(y int32[batch], outputs float32[batch, classes], from_logits, label smoothing)`` → losses.
    """

    name: str
    per_example: Callable[[Any, Any, bool, float], Any]


def _sparse(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    if smoothing:
        return _categorical(y, out, logits, smoothing)
    return keras.losses.sparse_categorical_crossentropy(y, out, from_logits=logits)


def _categorical(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    return keras.losses.categorical_crossentropy(_one_hot(y, out), out, from_logits=logits, label_smoothing=smoothing)


def _binary(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras
    import tensorflow as tf

    truth = tf.cast(y, tf.float32)[:, None]
    return keras.losses.binary_crossentropy(truth, out, from_logits=logits, label_smoothing=smoothing)


def _distance(name: str) -> Callable[[Any, Any, bool, float], Any]:
    def loss(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
        import keras

        return getattr(keras.losses, name)(_one_hot(y, out), out)

    return loss


def _one_hot(y: Any, out: Any) -> Any:
    import tensorflow as tf

    return tf.one_hot(y, out.shape[-1])


LOSSES: dict[str, Objective] = {
    "sparse-categorical-crossentropy": Objective("sparse-categorical-crossentropy", _sparse),
    "categorical-crossentropy": Objective("categorical-crossentropy", _categorical),
    "binary-crossentropy": Objective("binary-crossentropy", _binary),
    "mse": Objective("mse", _distance("mean_squared_error")),
    "mae": Objective("mae", _distance("mean_absolute_error")),
    "huber": Objective("huber", _distance("huber")),
}


def objective(name: str) -> Objective:
    """Returns one row of `LOSSES`.

    Raises:
        ExportError: There is no such loss.
    """
    if name not in LOSSES:
        raise ExportError(f"unknown loss '{name}'.{nearest(name, LOSSES)}")
    return LOSSES[name]


def right_answers(y: Any, out: Any, from_logits: bool) -> Any:
    """Returns ``float32[batch]``, 1 where the largest output is the label; a lone output says class 1 if large."""
    import tensorflow as tf

    if out.shape[-1] == 1:
        guess = tf.cast(out[..., 0] > (0.0 if from_logits else 0.5), tf.int32)
    else:
        guess = tf.argmax(out, axis=-1, output_type=tf.int32)
    return tf.cast(tf.equal(guess, y), tf.float32)
