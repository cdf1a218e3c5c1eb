"""Losses by name: integer labels → targets → a loss for every example, and which answers are right.

| loss                            | outputs             | target of label ``y`` | right is                       |
|---------------------------------|---------------------|-----------------------|--------------------------------|
| sparse-categorical-crossentropy | one a class         | ``y`` itself          | the largest output's class     |
| categorical-crossentropy        | one a class         | one-hot               | the same                       |
| categorical-focal-crossentropy  | one a class         | one-hot               | the same                       |
| binary-crossentropy             | one, of two classes | 0 or 1                | 1 above ½, for a logit above 0 |
| binary-focal-crossentropy       | the same            | the same              | the same                       |
| mse, mae, huber                 | one a class         | one-hot               | the largest output's class     |
|                                 | one, of two classes | 0 or 1                | 1 above ½                      |

A distance pulls a lone output, or a tag's, to 0 or 1 whatever it is made of: its middle is ½ for a linear one too.

That is classification. Other tasks (`fl_mobile.tasks`) give targets that are outputs already: numbers and bits are
compared one by one, classes of a sequence or a picture at every position that is no padding, averaged for each example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fl_mobile.errors import ConfigError, ModelError, check_known
from fl_mobile.table import Table
from fl_mobile.tasks.heads import HEADS_LOSS, Head, answers_of, targets_of
from fl_mobile.tasks.table import BITS, CLASSES, CLASSIFICATION, NUMBERS, bare, task_row, weights_by_head
from fl_mobile.tasks.weighted import Weighted, parted


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
        smooths: Labels can be smoothed.
    """

    per_example: Callable[[Any, Any, bool, float], Any]
    one_output: bool
    one_per_class: bool = True
    sparse: bool = False
    reads_logits: bool = False
    smooths: bool = False


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


def _focal(y: Any, out: Any, logits: bool, smoothing: float) -> Any:
    """Lin et al. 2017 with Keras' α = ¼ and γ = 2: what is told well already counts for little."""
    import keras

    return keras.losses.categorical_focal_crossentropy(
        targets(y, out), out, from_logits=logits, label_smoothing=smoothing
    )


def _binary_focal(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    return keras.losses.binary_focal_crossentropy(truth, out, from_logits=logits, label_smoothing=smoothing)


def _distance(name: str) -> Callable[[Any, Any, bool, float], Any]:
    def loss(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
        import keras

        return getattr(keras.losses, name)(truth, out)

    return loss


LOSSES: Table[Loss] = Table(
    "loss",
    Loss,
    {
        "sparse-categorical-crossentropy": Loss(
            _sparse, one_output=False, sparse=True, reads_logits=True, smooths=True
        ),
        "categorical-crossentropy": Loss(_categorical, one_output=False, reads_logits=True, smooths=True),
        "binary-crossentropy": Loss(_binary, one_output=True, one_per_class=False, reads_logits=True, smooths=True),
        "categorical-focal-crossentropy": Loss(_focal, one_output=False, sparse=True, reads_logits=True, smooths=True),
        "binary-focal-crossentropy": Loss(
            _binary_focal, one_output=True, one_per_class=False, reads_logits=True, smooths=True
        ),
        "mse": Loss(_distance("mean_squared_error"), one_output=True),
        "mae": Loss(_distance("mean_absolute_error"), one_output=True),
        "huber": Loss(_distance("huber"), one_output=True),
    },
)


_HEADS = Loss(lambda *_: None, one_output=False, reads_logits=True)
"""What trains several heads: `loss_of` adds up their losses."""


def loss_row(name: str) -> Loss:
    """Returns one row of `LOSSES`.

    Raises:
        ConfigError: There is no such loss.
    """
    if name == HEADS_LOSS:
        return _HEADS
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


def check_answers_fit(
    task: str, loss: str, shape: tuple[int, ...], target: tuple[int, ...], classes: int, *, what: str
) -> None:
    """Refuses a model whose answers are not what a task compares with its targets.

    Args:
        task: Row of `TASKS`.
        loss: Row of `LOSSES`.
        shape: Of the model's answer to one example.
        target: Shape of one example's target.
        classes: How many classes, tags or numbers there are; 0 where nothing counts them.
        what: Subject of the message.

    Raises:
        ModelError: With the shape to give instead.
    """
    row = task_row(task)
    if row.heads:  # their joint was checked when the model was built: `fl_mobile.models.ends`
        return
    if task == CLASSIFICATION:
        if len(shape) != 1:
            raise ModelError(
                f"{what} answers (batch, {', '.join(map(str, shape))}), task '{task}' takes one row of class scores"
                " for an example, (batch, classes): add a pooling or Flatten layer and a Dense one"
            )
        check_outputs(loss, shape[0], classes, what=what)
        if shape[0] not in (1, classes):
            raise ModelError(f"{what} has {shape[0]} outputs for {classes} classes: give it {classes}")
        return
    wanted = (*target, classes) if row.kind == CLASSES else target
    if shape != wanted:
        told = {CLASSES: "one score for each class at every position", BITS: "one score for each tag"}
        raise ModelError(
            f"{what} answers (batch, {', '.join(map(str, shape))}), task '{task}' needs"
            f" (batch, {', '.join(map(str, wanted))}): {told.get(row.kind, 'one number for each of the targets')};"
            " change the model, or say with task.name what the targets are"
        )


class Terms(Protocol):
    """What says how a loss is made: a plan of local training, or the options of a training program."""

    @property
    def loss(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def from_logits(self) -> bool: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def class_weights(self) -> tuple[float, ...]: ...


def check_terms(loss: str, task: str, smoothing: float, class_weights: Sequence[float]) -> None:
    """Refuses smoothing and weights that a loss or a task has no use for.

    Raises:
        ConfigError: With what they are for.
    """
    row, of = loss_row(loss), task_row(bare(task))
    if not 0 <= smoothing < 1:
        raise ConfigError(f"label-smoothing must be at least 0 and below 1, got {smoothing}")
    if smoothing and not row.smooths:
        smoothing_ones = ", ".join(name for name, other in LOSSES.items() if other.smooths)
        raise ConfigError(f"label-smoothing is for {smoothing_ones}, and the loss is {loss}: leave it at 0")
    if class_weights and of.heads:
        weights_by_head(of.heads, class_weights)
    elif class_weights and of.kind != CLASSES:
        raise ConfigError(
            f"class-weights are for tasks of classes, and targets of '{bare(task)}' are {of.kind}: leave them out"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in class_weights) or (
        class_weights and not any(class_weights)
    ):
        raise ConfigError(f"class-weights must be at least 0, and one above, got {', '.join(map(str, class_weights))}")


def training_loss(terms: Terms, y: Any, out: Any) -> Any:
    """Returns ``float32[batch]``: what local training makes small; arguments as of `loss_of`."""
    return loss_of(
        terms.loss,
        y,
        out,
        from_logits=terms.from_logits,
        smoothing=terms.label_smoothing,
        task=terms.task,
        class_weights=terms.class_weights,
    )


def evaluation_loss(terms: Terms, y: Any, out: Any) -> Any:
    """Returns the same by true labels and with every class as it comes: what is told of a model."""
    return loss_of(terms.loss, y, out, from_logits=terms.from_logits, task=terms.task)


def loss_of(
    loss: str,
    y: Any,
    out: Any,
    *,
    from_logits: bool,
    smoothing: float = 0.0,
    task: str = CLASSIFICATION,
    class_weights: Sequence[float] = (),
) -> Any:
    """Returns ``float32[batch]``: the loss of every example, times its weight where the task has weights.

    Args:
        loss: Row of `LOSSES`.
        y: Targets: of classification labels ``int[batch]``, of other tasks ``[batch, …]``.
        out: Outputs, ``float[batch, …]``.
        from_logits: Whether the outputs still need softmax or sigmoid.
        smoothing: Of labels, in cross-entropies.
        task: Row of `TASKS`.
        class_weights: What the loss of a class is multiplied by, of several heads as of `weights_by_head`; empty is 1.

    Raises:
        ModelError: The loss cannot train so many outputs.
    """
    row, kind = loss_row(loss), task_row(task).kind
    if of := task_row(task).weighted:
        truth, weight = _parted(of, y)
        rest: dict[str, Any] = {"task": of.task, "class_weights": class_weights}
        return weight * loss_of(loss, truth, out, from_logits=from_logits, smoothing=smoothing, **rest)
    if heads := task_row(task).heads:
        parts, weights = _by_head(heads, y, out), weights_by_head(heads, class_weights)
        total: Any = 0.0
        for head in heads:
            own: dict[str, Any] = {"task": head.task, "class_weights": weights[head.name]}
            total = total + head.weight * loss_of(head.loss, *parts[head.name], from_logits=True, **own)
        return total
    if task == CLASSIFICATION:
        check_outputs(loss, int(out.shape[-1]))
        each = row.per_example(y if row.sparse else targets(y, out), out, from_logits, smoothing)
        return each * _weights(class_weights, y) if class_weights else each
    if kind == CLASSES:
        return _over_positions(row, y, out, from_logits=from_logits, smoothing=smoothing, weights=class_weights)
    return row.per_example(_flat(y), _flat(out), from_logits, smoothing)


def _parted(of: Weighted, y: Any) -> tuple[Any, Any]:
    """Returns a batch's targets, classes as integers, and its weights ``float32[batch]``."""
    import tensorflow as tf

    whole = (lambda y: tf.cast(y, tf.int32)) if task_row(of.task).kind == CLASSES else None
    return parted(of, tf.convert_to_tensor(y, tf.float32), whole)


def _by_head(heads: Sequence[Head], y: Any, out: Any) -> dict[str, tuple[Any, Any]]:
    """Returns each head's targets, classes as integers, and its answers."""
    import tensorflow as tf

    found, answers = targets_of(heads, y), answers_of(heads, out)
    whole = {head.name for head in heads if task_row(head.task).kind == CLASSES}
    return {name: (tf.cast(y, tf.int32) if name in whole else y, answers[name]) for name, y in found.items()}


def _flat(values: Any) -> Any:
    """Returns ``float32[batch, numbers]``."""
    import tensorflow as tf

    flat = values if len(values.shape) == 2 else tf.reshape(values, (-1, math.prod(values.shape[1:])))
    return tf.cast(flat, tf.float32) if flat.dtype != tf.float32 else flat


def _weights(class_weights: Sequence[float], labels: Any) -> Any:
    """Returns ``float32[n]``. By one-hot rows, because a phone's program has them anyway."""
    import tensorflow as tf

    rows = tf.one_hot(labels, len(class_weights))
    return tf.reduce_sum(rows * tf.constant(class_weights, tf.float32), axis=1)


def _over_positions(
    row: Loss, y: Any, out: Any, *, from_logits: bool, smoothing: float, weights: Sequence[float]
) -> Any:
    """Returns the mean loss over the positions of each example that are no padding; 0 where all are."""
    import tensorflow as tf

    positions, classes = math.prod(out.shape[1:-1]), out.shape[-1]
    labels = tf.reshape(y, (-1,))
    shown = tf.maximum(labels, 0)
    each = row.per_example(shown, tf.reshape(out, (-1, classes)), from_logits, smoothing)
    each = each * _weights(weights, shown) if weights else each
    real = tf.reshape(tf.cast(labels >= 0, tf.float32), (-1, positions))
    total = tf.reduce_sum(tf.reshape(each, (-1, positions)) * real, axis=1)
    return total / tf.maximum(tf.reduce_sum(real, axis=1), 1.0)


def targets(y: Any, out: Any) -> Any:
    """Returns ``float32[batch, outputs]``: labels 0 and 1 as they are for a lone output, else one-hot."""
    import tensorflow as tf

    return tf.cast(y, tf.float32)[:, None] if out.shape[-1] == 1 else tf.one_hot(y, out.shape[-1])


def middle_of(loss: str, *, from_logits: bool) -> float:
    """Returns where a lone output of two classes turns from the first to the second, and a tag from no to yes."""
    return 0.0 if from_logits and loss_row(loss).reads_logits else 0.5


def right_answers(loss: str, y: Any, out: Any, *, from_logits: bool, task: str = CLASSIFICATION) -> Any:
    """Returns ``bool[batch]``: whether each output names its label; arguments as of `loss_of`.

    Of other tasks ``float32[batch]``: the share of an example's positions or tags that are right; 0 of numbers; of
    several heads the mean over them. Weights of examples are not in it.
    """
    import tensorflow as tf

    kind = task_row(task).kind
    if of := task_row(task).weighted:
        return right_answers(loss, _parted(of, y)[0], out, from_logits=from_logits, task=of.task)
    if heads := task_row(task).heads:
        parts = _by_head(heads, y, out)
        right = (right_answers(h.loss, *parts[h.name], from_logits=True, task=h.task) for h in heads)
        return sum(tf.cast(share, tf.float32) for share in right) / float(len(heads))
    if kind == NUMBERS:
        return tf.zeros_like(_flat(out)[:, 0])
    if kind == BITS:
        told = tf.cast(_flat(out) > middle_of(loss, from_logits=from_logits), tf.float32)
        return 1.0 - tf.reduce_mean(tf.abs(told - _flat(y)), axis=1)
    if task != CLASSIFICATION:
        shape = (-1, math.prod(out.shape[1:-1]))
        answer = tf.argmax(tf.reshape(out, (-1, out.shape[-1])), axis=-1, output_type=y.dtype)
        right = tf.reshape(tf.cast(tf.equal(answer, tf.reshape(y, (-1,))), tf.float32), shape)
        real = tf.reshape(tf.cast(y >= 0, tf.float32), shape)
        return tf.reduce_sum(right, axis=1) / tf.maximum(tf.reduce_sum(real, axis=1), 1.0)
    if out.shape[-1] > 1:
        return tf.equal(tf.argmax(out, axis=-1, output_type=y.dtype), y)
    return tf.equal(tf.cast(out[:, 0] > middle_of(loss, from_logits=from_logits), y.dtype), y)
