"""MODEL as something a phone shall train: the Keras model, how it is trained, and examples to prove it on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets import Dataset
from device_sim.experiment.as_compiled import as_compiled, left_open
from device_sim.experiment.class_weights import class_weights_of
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment, read_experiment
from device_sim.federation.dealing import open_dataset
from device_sim.federation.federation import build_of
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.keras_file import read_model, read_run_model
from export.training.program import example_shape
from export.training.proof.reference import inputs_of
from fl_mobile.client.private import NONE
from fl_mobile.errors import ConfigError, ModelError, nearest
from fl_mobile.local.compiled import Compiled, compiled_in_file, compiled_of
from fl_mobile.local.losses import check_outputs
from fl_mobile.models import MODELS, build_model
from fl_mobile.models.heads import head_of
from fl_mobile.records import FitPlan
from fl_mobile.tasks import AUTO, decided
from fl_mobile.tasks.table import CLASSIFICATION

_LOG = logging.getLogger("fl_mobile.compiled")
BATCH = 16
EXAMPLES = 256
_TRAIN_KEYS = ("batch-size", "optimizer", "momentum", "loss", "clip-gradient-norm")
_SERVER_KEYS = ("algorithm", "proximal-mu", "alpha")
_SHAPES_A_PROGRAM = ("seed", "task.name", *(f"server.{k}" for k in _SERVER_KEYS), *(f"train.{k}" for k in _TRAIN_KEYS))


@dataclass(frozen=True)
class Trainable:
    """What a training program is made of.

    Attributes:
        model: The Keras model.
        plan: How a device trains.
        correction: Whether the algorithm adds a tensor to every gradient.
        input_dtype: Of examples.
        batch_size: Rows of a batch, where nothing else is said.
        examples: Real ones with labels, or None.
        inputs: Of several, what lies in a row of an example.
    """

    model: Any
    plan: FitPlan
    correction: bool
    input_dtype: str
    batch_size: int
    examples: tuple[np.ndarray, np.ndarray] | None
    inputs: tuple[str, ...] = ()

    def options(self, batch_size: int | None) -> dict[str, Any]:
        """Returns the options of `build_training_program`."""
        return {
            "batch_size": batch_size or self.batch_size,
            "loss": self.plan.loss,
            "task": self.plan.task,
            "from_logits": self.plan.from_logits,
            "optimizer": self.plan.optimizer,
            "momentum": self.plan.momentum,
            "clip_norm": self.plan.clip_gradient_norm,
            "label_smoothing": self.plan.label_smoothing,
            "class_weights": self.plan.class_weights,
            "proximal": self.plan.proximal_mu > 0,
            "correction": self.correction,
            "input_dtype": self.input_dtype,
            "inputs": self.inputs,
        }


def open_trainable(text: str, dataset: str | None, changes: Sequence[str], imports: Sequence[str] = ()) -> Trainable:
    """Returns what MODEL is and how it is to be trained.

    Args:
        text: A run folder, a Keras file, a row of the model table or ``package.module:function``.
        dataset: Its data; a run knows its own.
        changes: ``section.key=value``.
        imports: Modules of the user's own layers, for a file.

    Raises:
        ConfigError: A key that shapes no program, or data that is missing.
        ModelError: It cannot be read or built, or its head does not fit the loss.
    """
    kind = _kind(text)
    if imports and kind != "file":
        raise ConfigError(f"--import names layers of a model file, and {text} is none. Leave it out.")
    _check_changes(kind, changes, has_data=kind == "run" or dataset is not None)
    experiment = _experiment(text, kind, dataset, changes)
    known = kind == "run" or any(change.startswith("data.dataset=") for change in _with(dataset, changes))
    data = open_dataset(experiment) if known else None
    model = read_model(Path(text), imports) if kind == "file" else _model(text, kind, experiment, data)
    experiment, compiled = _as_compiled(text=text, kind=kind, experiment=experiment, changes=changes, model=model)
    shape = example_shape(model)
    dtype = _dtype(text, kind, model, data)
    head = head_of(model, np.ones((2, *shape), dtype))
    said = kind != "file" or "train.loss" in _keys(changes) or (compiled is not None and compiled.loss != "")
    task = _task(text, kind, experiment, data)
    if task != CLASSIFICATION:
        loss = decided(task, experiment.train.loss, type(experiment.train).loss)
    else:
        answer = tuple(model.outputs[0].shape)
        if len(answer) != 2:
            raise ModelError(
                f"{text} answers {answer} for a batch, task '{task}' takes one row of class scores for an example: say"
                " what it answers with --set task.name=segmentation or sequence, or add a pooling or Flatten layer and"
                " a Dense one"
            )
        outputs = int(answer[-1])
        loss = experiment.train.loss if said else _loss_of_head(text, experiment, head, outputs)
        check_outputs(loss, outputs, None if data is None else data.num_classes, what=text)
    algorithm = experiment.server.build()
    asked, private = experiment.train.class_weights, experiment.privacy.on
    weights = () if data is None else class_weights_of(asked, data, private=private)
    if asked and data is None:
        raise ConfigError(f"{text}: train.class-weights needs to know the classes: name the data with --dataset")
    fit = experiment.train.plan(
        experiment.train.settled_round,
        from_logits=head == "logits",
        task=data.trained_task if data is not None and task == data.task else task,
        class_weights=weights,
    )
    if fit.keep_zeros or fit.fake_quant:
        section = "[train.pruning] keeps zeros" if fit.keep_zeros else "[train.qat] rounds"
        raise ConfigError(f"{text}: {section} in every step, which no training program does: phones would undo it")
    plan = algorithm.plan(FitPlan(**{**vars(fit), "loss": loss}))
    examples = None
    if data is not None:
        examples = data.test.x[:EXAMPLES], data.trained_targets(data.test.y, data.test.weight)[:EXAMPLES]
    batch = experiment.train.batch_size if kind == "run" or "train.batch-size" in _keys(changes) else BATCH
    return Trainable(
        model=model,
        plan=plan,
        correction=algorithm.variate is not None,
        input_dtype=dtype,
        batch_size=batch or BATCH,
        examples=examples,
        inputs=() if data is None else tuple(port.text for port in data.ports),
    )


def open_model(text: str) -> Any:
    """Returns the Keras model that MODEL is, to hold a program against it.

    Raises:
        ConfigError, ModelError: As `open_trainable`.
    """
    kind = _kind(text)
    experiment = _experiment(text, kind, None, [])
    return _model(text, kind, experiment, open_dataset(experiment) if kind == "run" else None)


def _task(text: str, kind: str, experiment: Experiment, data: Dataset | None) -> str:
    """Returns the task: of the data, else what task.name says, else that of the table's row."""
    if data is not None:
        return data.task
    if experiment.task.name != AUTO:
        return experiment.task.name
    return MODELS[text].task if kind == "name" and text in MODELS else CLASSIFICATION


def _kind(text: str) -> str:
    """Returns ``"run"``, ``"file"`` or ``"name"``."""
    if RunFolder(Path(text)).experiment.exists():
        return "run"
    return "file" if Path(text).suffix in (".keras", ".h5", ".hdf5") or "/" in text else "name"


def _keys(changes: Sequence[str]) -> list[str]:
    return [change.partition("=")[0].strip() for change in changes]


def _with(dataset: str | None, changes: Sequence[str]) -> list[str]:
    return [*([f"data.dataset={dataset}"] if dataset else []), *changes]


def _check_changes(kind: str, changes: Sequence[str], *, has_data: bool) -> None:
    """Refuses keys that would change nothing of a program."""
    has_data = has_data or "data.dataset" in _keys(changes)
    for key in _keys(changes):
        if key == "train.learning-rate":
            raise ConfigError("train.learning-rate shapes no program: it is an input of every training step")
        if key.startswith("model.") and kind != "name":
            raise ConfigError(f"{key} builds a named model, and this one is a {kind} that is built already")
        if key.startswith("data.") and not has_data:
            raise ConfigError(f"{key} needs a dataset: name one with --dataset")
        if key not in _SHAPES_A_PROGRAM and not key.startswith(("data.", "model.")):
            raise ConfigError(
                f"{key} shapes no training program. Keys that do: data.*, model.*, {', '.join(_SHAPES_A_PROGRAM)}"
            )


def _experiment(text: str, kind: str, dataset: str | None, changes: Sequence[str]) -> Experiment:
    if kind == "run":
        reopen(Path(text))
        return read_experiment(RunFolder(Path(text)).experiment, _with(dataset, changes))
    return parse_experiment("", [*([f"model.name={text}"] if kind == "name" else []), *_with(dataset, changes)])


def _model(text: str, kind: str, experiment: Experiment, data: Dataset | None) -> Any:
    if kind == "file":
        return read_model(Path(text))
    if kind == "run":
        if experiment.personal.private != NONE:
            raise ConfigError(
                f"{text}: personal.private '{experiment.personal.private}' left tensors on the devices that trained"
                " them; a program would send what must not travel. Export the program of a run without it."
            )
        return read_run_model(RunFolder(Path(text)).model, experiment)
    if data is not None:
        return build_of(experiment, data)()
    if ":" in text:
        raise ConfigError(f"--dataset is missing: {text} is built for the examples and classes of a dataset")
    if text not in MODELS:
        raise ConfigError(f"unknown model '{text}'.{nearest(text, MODELS)} Or give a .keras file or a run folder.")
    row = MODELS[text]
    return build_model(
        text,
        input_shape=row.input_shape,
        num_classes=row.num_classes,
        input_scale=row.input_scale,
        seed=experiment.seed,
        weights=experiment.model.weights or "none",
    )


def _dtype(text: str, kind: str, model: Any, data: Dataset | None) -> str:
    """Returns what examples are: raw pixels, tokens or floats."""
    if data is not None:
        found = data.train.x.dtype
        return "uint8" if found == np.uint8 else ("int32" if found.kind in "iu" else "float32")
    if kind == "name":
        return MODELS[text].input_dtype
    tokens = "tokens" in inputs_of(model) or "int" in str(model.inputs[0].dtype)
    return "int32" if tokens else "float32"


def _as_compiled(
    text: str, kind: str, experiment: Experiment, changes: Sequence[str], model: Any
) -> tuple[Experiment, Compiled | None]:
    """Returns the experiment as the model was compiled; a run's says it already. What was taken is told."""
    compiled = None if kind == "run" else compiled_in_file(Path(text)) if kind == "file" else compiled_of(model)
    if compiled is None:
        return experiment, None
    compiled = replace(compiled, learning_rate=0.0)  # an input of every training step, and no part of the program
    experiment, told = as_compiled(experiment, compiled, left_open("", changes))
    if told:
        _LOG.warning("%s: %s", text, told)
    return experiment, compiled


def _loss_of_head(text: str, experiment: Experiment, head: str, outputs: int) -> str:
    """Returns the loss that a file's head asks for; nothing else in it says what its outputs mean."""
    if head == "softmax":
        return experiment.train.loss
    if head == "sigmoid" and outputs == 1:
        return "binary-crossentropy"
    raise ConfigError(
        f"{text}: what its {outputs} output{'s' * (outputs > 1)} mean cannot be seen: they end in no softmax and no"
        " single sigmoid. Say it with --loss: sparse-categorical-crossentropy if they are scores of classes,"
        " binary-crossentropy if one is the score of two classes, mse for distances to 0 and 1"
    )
