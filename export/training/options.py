"""What is built into one program, and the tensors its signatures take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.training.contract import Contract
from fl_mobile.tasks.table import CLASSES, CLASSIFICATION, task_row


@dataclass(frozen=True)
class Options:
    """What is built into one program; see `build_training_program`."""

    batch_size: int
    loss: str
    from_logits: bool
    optimizer: str
    momentum: float
    clip_norm: float
    label_smoothing: float
    proximal: bool
    correction: bool
    accumulate: bool
    input_dtype: str
    input_shape: tuple[int, ...]
    task: str = CLASSIFICATION
    target_shape: tuple[int, ...] = ()
    class_weights: tuple[float, ...] = ()


def options_of(contract: Contract) -> Options:
    """Returns what a program was built with, from its contract."""
    x, y = (next(p for p in contract.signature("train").inputs if p.name == name) for name in "xy")
    return Options(
        batch_size=contract.batch_size,
        loss=contract.loss,
        from_logits=contract.from_logits,
        optimizer=contract.optimizer,
        momentum=contract.momentum,
        clip_norm=contract.clip_norm,
        label_smoothing=contract.label_smoothing,
        proximal=contract.proximal,
        correction=contract.correction,
        accumulate=contract.accumulate,
        input_dtype=x.dtype,
        input_shape=tuple(x.shape[1:]),
        task=contract.task,
        target_shape=tuple(y.shape[1:]),
        class_weights=contract.class_weights,
    )


def target_dtype(task: str) -> str:
    """Returns what targets of a task are given as: ``"int32"`` classes, or ``"float32"`` bits and numbers."""
    return "int32" if task_row(task).kind == CLASSES else "float32"


def batch_specs(options: Options) -> dict[str, Any]:
    """Returns the specs of x, y and mask."""
    import tensorflow as tf

    batch = options.batch_size
    return {
        "x": tf.TensorSpec([batch, *options.input_shape], tf.as_dtype(options.input_dtype), "x"),
        "y": tf.TensorSpec([batch, *options.target_shape], target_dtype(options.task), "y"),
        "mask": tf.TensorSpec([batch], tf.float32, "mask"),
    }


def rate_specs(options: Options) -> dict[str, Any]:
    """Returns the specs of the learning rate and, in a proximal program, of μ."""
    import tensorflow as tf

    names = ["learning_rate", *(["prox_mu"] if options.proximal else [])]
    return {name: tf.TensorSpec([1], tf.float32, name) for name in names}
