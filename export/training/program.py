"""Builds the device program: one ``.tflite`` that trains a Keras model with builtin operations only.

```
trace model + loss ─▶ replay by RULES ─▶ gradients ─▶ clip, proximal, correction ─▶ optimizer ─▶ convert ─▶ check
   (Keras layers)       autodiff.py                          fl_mobile.local          one file, six signatures
```
Signatures: ``train``, ``evaluate``, ``infer``, ``get_weights``, ``set_weights`` and, on request, ``set_correction``, or
``accumulate`` and ``apply``.
Weights live in resource variables that all signatures share; they hold nothing until ``set_weights`` is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from export.training.contract import Contract
from export.training.convert import convert_module, read_contract_parts
from export.training.layers import check_layers, dropout_layers
from export.training.module import make_module
from export.training.options import Options
from export.training.proof.operations import lost_operations
from export.training.proof.prove import Proof, prove
from fl_mobile.errors import ExportError
from fl_mobile.local.losses import loss_row
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import keras_bridge
from fl_mobile.tasks.table import CLASSES, CLASSIFICATION, task_row


@dataclass(frozen=True)
class TrainingProgram:
    """The file, what must be known to run it, and what was compared with Keras."""

    tflite: bytes
    contract: Contract
    proof: Proof = field(repr=False)


def build_training_program(
    model: Any,
    *,
    batch_size: int,
    loss: str = "sparse-categorical-crossentropy",
    task: str = CLASSIFICATION,
    from_logits: bool = True,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    clip_norm: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] = (),
    proximal: bool = False,
    correction: bool = False,
    accumulate: bool = False,
    inputs: Sequence[str] = (),
    input_dtype: str = "float32",
    input_shape: tuple[int, ...] | None = None,
    examples: tuple[np.ndarray, np.ndarray] | None = None,
) -> TrainingProgram:
    """Returns the training program of a built Keras 3 model, proven to train as Keras does.

    Args:
        model: Single input, single output, ``channels_last``; frozen layers become constants of the program.
        batch_size: Rows of every batch; short batches are padded and masked.
        loss: Row of `LOSSES`, one of the task's.
        task: Row of `fl_mobile.tasks.TASKS`: labels are integers, others have the shape of answers.
            With weights (`fl_mobile.tasks.weighted`) a target is a row of float32, its weight the last number.
        from_logits: Whether the outputs still need softmax or sigmoid.
        optimizer: Row of `OPTIMIZERS`.
        momentum: Coefficient of ``momentum``.
        clip_norm: Global-norm bound of every step's gradient, 0 for none. Of an embedding that is the norm of its whole
            gradient; Keras' ``global_clipnorm`` counts rows that a batch repeats one by one.
        label_smoothing: Of cross-entropies, in ``train``.
        class_weights: What the loss of each class is multiplied by in ``train``; empty is 1.
        proximal: Adds the input ``prox_mu`` to ``train``: FedProx's μ (Li et al., MLSys 2020).
        correction: Adds ``set_correction``: a tensor added to every gradient (SCAFFOLD's c − cᵢ, Karimireddy et al.,
            ICML 2020).
        accumulate: Adds ``accumulate`` and ``apply``: one step from the mean gradient of several batches, for a batch
            that does not fit the phone's memory.
        input_dtype: ``float32``, ``uint8`` (raw pixels, cast in the program) or ``int32`` (tokens).
        inputs: Of several, what lies in a row of ``x``; see `Contract.inputs`.
        input_shape: Of one example; only a subclassed model, which does not know its own, needs it.
        examples: Real examples and labels; the proof then uses them beside drawn ones.

    Raises:
        ExportError: A layer cannot train on a phone, or the program does not do what Keras does; the message names the
            layer and what to do.
    """
    if batch_size < 1:
        raise ExportError(f"batch_size must be at least 1, got {batch_size}: the phone's program has a fixed batch")
    if input_dtype not in ("float32", "uint8", "int32"):
        raise ExportError(f"input_dtype must be float32, uint8 or int32, got '{input_dtype}'")
    shape = example_shape(model, input_shape)
    if examples is not None and examples[0].shape[1:] != shape:
        raise ExportError(
            f"model '{model.name}' takes examples of shape {shape}, those given have {examples[0].shape[1:]}: name the"
            " dataset it is for"
        )
    local_optimizer(optimizer), loss_row(loss)
    if loss not in task_row(task).losses:
        raise ExportError(
            f"loss '{loss}' cannot train task '{task}': its losses are {', '.join(task_row(task).losses)}"
        )
    check_layers(model)
    options = Options(
        batch_size=batch_size,
        loss=loss,
        from_logits=from_logits,
        optimizer=optimizer,
        momentum=momentum,
        clip_norm=clip_norm,
        label_smoothing=label_smoothing,
        proximal=proximal,
        correction=correction,
        accumulate=accumulate,
        input_dtype=input_dtype,
        input_shape=shape,
        task=task,
        target_shape=target_shape(model, task),
        class_weights=class_weights,
    )
    module, signatures = make_module(model, options)
    tflite = convert_module(module, signatures, model.name)
    weights, ports, versions = read_contract_parts(tflite, keras_bridge.travelling_variables(model))
    contract = Contract(
        model=model.name,
        batch_size=batch_size,
        optimizer=optimizer,
        momentum=momentum,
        loss=loss,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        clip_norm=clip_norm,
        proximal=proximal,
        correction=correction,
        accumulate=accumulate,
        dropout_layers=dropout_layers(model),
        weights=weights,
        signatures=ports,
        versions=versions,
        file_bytes=len(tflite),
        sha256=hashlib.sha256(tflite).hexdigest(),
        task=task,
        class_weights=class_weights,
        inputs=tuple(inputs),
    )
    lost = lost_operations(signatures, tflite)
    proof = prove(model, options, tflite, contract, examples=examples, lost=lost)
    return TrainingProgram(tflite, contract, proof)


def target_shape(model: Any, task: str) -> tuple[int, ...]:
    """Returns the shape of one example's target: that of the answer, without the scores of classes; or of a row.

    Raises:
        ExportError: The size of the answer is open, or the answer is none of the task.
    """
    outputs = getattr(model, "outputs", None)
    if of := task_row(task).weighted:
        return (prod(target_shape(model, of.task)) + 1,)
    if task == CLASSIFICATION:
        if outputs and len(outputs[0].shape) != 2:
            raise ExportError(
                f"model '{model.name}' answers {tuple(outputs[0].shape)}, task '{task}' takes (batch, classes): name"
                " its task, e.g. --set task.name=sequence, or give it a pooling or Flatten layer and a Dense one"
            )
        return ()
    if heads := task_row(task).heads:
        return (sum(prod(head.target) for head in heads),)
    if not outputs or None in outputs[0].shape[1:]:
        raise ExportError(f"model '{model.name}': the shape of its answer is open; task '{task}' needs it fixed")
    shape = tuple(int(size) for size in outputs[0].shape[1:])
    row = task_row(task)
    found = shape[:-1] if row.kind == CLASSES else shape
    if row.axes not in (None, len(found)):
        raise ExportError(f"model '{model.name}' answers (batch, {', '.join(map(str, shape))}): none of task '{task}'")
    return found


def example_shape(model: Any, given: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Returns the shape of one example of ``model``, without batch.

    Args:
        model: A built Keras 3 model.
        given: The shape, where the model leaves it open.

    Raises:
        ExportError: The model has several inputs or outputs, or its shape is open and not given.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if inputs is None or outputs is None:
        if given is None:
            raise ExportError(f"model '{model.name}' is subclassed and has no fixed input: give input_shape")
        return tuple(given)
    if len(inputs) != 1 or len(outputs) != 1:
        found = ", ".join(f"{tensor.name} {tuple(tensor.shape)}" for tensor in (*inputs, *outputs))
        raise ExportError(
            f"model '{model.name}' has {len(inputs)} inputs and {len(outputs)} outputs ({found}); the training program"
            " takes one of each"
        )
    shape = tuple(inputs[0].shape[1:])
    if None in (given or shape):
        raise ExportError(f"model '{model.name}' takes inputs of shape {shape}: give a fixed input_shape")
    return tuple(given or shape)
