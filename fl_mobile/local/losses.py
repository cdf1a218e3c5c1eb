"""Losses by name: integer labels → targets → a loss for every example, and which answers are right.

| loss                            | outputs             | target of label ``y`` | right is                       |
|---------------------------------|---------------------|-----------------------|--------------------------------|
| sparse-categorical-crossentropy | one a class         | ``y`` itself          | the largest output's class     |
| categorical-crossentropy        | one a class         | one-hot               | the same                       |
| binary-crossentropy             | one, of two classes | 0 or 1                | 1 above ½, for a logit above 0 |
| mse, mae, huber                 | one a class         | one-hot               | the largest output's class     |
|                                 | one, of two classes | 0 or 1                | 1 above ½                      |

A distance pulls a lone output to 0 or 1 whatever it is made of, so its middle is ½ for a linear output too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import ModelError, check_known


@dataclass(frozen=True)
class Loss:
    """One row of `LOSSES`.

    Attributes:
        per_example: Targets ``float32[batch, outputs]`` (``int[batch]`` where sparse), outputs, whether they are
            logits, label smoothing → ``float32[batch]``.
        one_output: Whether a lone output for two classes can be trained with it.
        one_per_class: Whether an output for each of several classes can.
        sparse: It takes labels as they are.
        reads_logits: It squashes logits itself; a distance takes outputs as they come.
    """

    per_example: Callable[[Any, Any, bool, float], Any]
    one_output: bool
    one_per_class: bool = True
    sparse: bool = False
    reads_logits: bool = False


def _sparse(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    if smoothing:
        return _categorical(targets(y, out), out, logits, smoothing)
    return keras.losses.sparse_categorical_crossentropy(y, out, from_logits=logits)


def _categorical(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    return keras.losses.categorical_crossentropy(truth, out, from_logits=logits, label_smoothing=smoothing)


def _binary(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    return keras.losses.binary_crossentropy(truth, out, from_logits=logits, label_smoothing=smoothing)


def _distance(name: str) -> Callable[[Any, Any, bool, float], Any]:
    def loss(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
        import keras

        return getattr(keras.losses, name)(truth, out)

    return loss


LOSSES: dict[str, Loss] = {
    "sparse-categorical-crossentropy": Loss(_sparse, one_output=False, sparse=True, reads_logits=True),
    "categorical-crossentropy": Loss(_categorical, one_output=False, reads_logits=True),
    "binary-crossentropy": Loss(_binary, one_output=True, one_per_class=False, reads_logits=True),
    "mse": Loss(_distance("mean_squared_error"), one_output=True),
    "mae": Loss(_distance("mean_absolute_error"), one_output=True),
    "huber": Loss(_distance("huber"), one_output=True),
}


def loss_row(name: str) -> Loss:
    """Returns one row of `LOSSES`.

    Raises:
        ConfigError: There is no such loss.
    """
    check_known("loss", name, LOSSES)
    return LOSSES[name]


def check_outputs(loss: str, outputs: int, classes: int | None = None, *, what: str = "the model") -> None:
    """Refuses a head that ``loss`` cannot train.

    Args:
        loss: Row of `LOSSES`.
        outputs: How many numbers the model gives for an example.
        classes: How many labels there are, where that is known.
        what: Subject of the message.

    Raises:
        ModelError: With the loss or the head to take instead.
    """
    row = loss_row(loss)
    lone = [name for name, other in LOSSES.items() if other.one_output]
    if outputs == 1 and not row.one_output:
        raise ModelError(
            f"{what} has one output, {loss} needs one for every class and would never learn: set train.loss ="
            f' "binary-crossentropy" (or {", ".join(lone[1:])}), or give the model {max(classes or 2, 2)} outputs'
        )
    if outputs > 1 and not row.one_per_class:
        raise ModelError(
            f"{what} has {outputs} outputs, {loss} is for one output and two classes: set train.loss ="
            ' "sparse-categorical-crossentropy", or give the model one output'
        )
    if classes is not None and 1 < outputs < classes:
        raise ModelError(f"{what} has {outputs} outputs for {classes} classes: give it one for each")
    if classes is not None and outputs == 1 and classes > 2:
        raise ModelError(f"{what} has one output, which tells two classes apart, for {classes} classes")


def loss_of(loss: str, y: Any, out: Any, *, from_logits: bool, smoothing: float = 0.0) -> Any:
    """Returns ``float32[batch]``: the loss of every example.

    Args:
        loss: Row of `LOSSES`.
        y: Labels, ``int[batch]``.
        out: Outputs, ``float[batch, outputs]``.
        from_logits: Whether the outputs still need softmax or sigmoid.
        smoothing: Of labels, in cross-entropies.

    Raises:
        ModelError: The loss cannot train so many outputs.
    """
    row = loss_row(loss)
    check_outputs(loss, int(out.shape[-1]))
    return row.per_example(y if row.sparse else targets(y, out), out, from_logits, smoothing)


def targets(y: Any, out: Any) -> Any:
    """Returns ``float32[batch, outputs]``: labels 0 and 1 as they are for a lone output, else one-hot."""
    import tensorflow as tf

    return tf.cast(y, tf.float32)[:, None] if out.shape[-1] == 1 else tf.one_hot(y, out.shape[-1])


def right_answers(loss: str, y: Any, out: Any, *, from_logits: bool) -> Any:
    """Returns ``bool[batch]``: whether each output names its label; arguments as of `loss_of`."""
    import tensorflow as tf

    if out.shape[-1] > 1:
        return tf.equal(tf.argmax(out, axis=-1, output_type=y.dtype), y)
    middle = 0.0 if from_logits and loss_row(loss).reads_logits else 0.5
    return tf.equal(tf.cast(out[:, 0] > middle, y.dtype), y)
