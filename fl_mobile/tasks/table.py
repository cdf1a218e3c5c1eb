"""The tasks by name. A row says everything that differs; the code that reads it is the same for all."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fl_mobile.errors import ConfigError, check_known
from fl_mobile.table import is_own, registered
from fl_mobile.tasks.heads import HEADS_LOSS, MEAN_SCORE, MULTI_HEAD, Head, heads_of
from fl_mobile.tasks.weighted import Weighted, weighted_of

AUTO = "auto"
CLASSES, BITS, NUMBERS, SEVERAL = "classes", "bits", "numbers", "several"
CLASSIFICATION, RECONSTRUCTION = "classification", "reconstruction"


@dataclass(frozen=True)
class TaskRow:
    """A task.

    Attributes:
        summary: What is answered.
        targets: Shape and type of the targets, in words.
        kind: What an entry of a target is: ``"classes"`` (one of k; −1 is padding and counts nowhere), ``"bits"`` (yes
            or no), ``"numbers"``, or ``"several"``: entries of several heads, or a target and its weight, each of its
            own kind.
        axes: Axes of a target beside that of the examples; None for any.
        losses: Rows of `LOSSES` that can train it; the first is the default.
        metrics: Rows of `METRICS` that are told of it. The first is its score, 1 for perfect answers: what
            ``stop.target-accuracy`` and ``output.keep-by = "accuracy"`` watch.
        activation: What finishes logits on the phone, as Keras calls it; empty where outputs are the answers.
        score_name: The score, as a report calls it.
        heads: Of a task of several heads (`fl_mobile.tasks.heads`), else empty.
        weighted: Of a task whose examples have weights (`fl_mobile.tasks.weighted`), what lies in a row; else None.
    """

    summary: str
    targets: str
    kind: str
    axes: int | None
    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    activation: str = ""
    score_name: str = ""
    heads: tuple[Head, ...] = ()
    weighted: Weighted | None = None

    @property
    def padded(self) -> bool:
        """Whether entries of a target may be padding."""
        return self.kind == CLASSES and self.axes != 0


_DISTANCES = ("mse", "mae", "huber")
_CROSS_ENTROPIES = ("sparse-categorical-crossentropy", "categorical-crossentropy", "binary-crossentropy")
_FOCAL = ("categorical-focal-crossentropy", "binary-focal-crossentropy")
_AT_POSITIONS = ("sparse-categorical-crossentropy", "categorical-focal-crossentropy")

TASKS: dict[str, TaskRow] = {
    CLASSIFICATION: TaskRow(
        summary="one of k classes for an example",
        targets="int[n], classes from 0",
        kind=CLASSES,
        axes=0,
        losses=(*_CROSS_ENTROPIES, *_FOCAL, *_DISTANCES),
        metrics=("accuracy", "macro-f1", "balanced-accuracy", "top-3", "auc"),
        activation="softmax",
        score_name="test accuracy",
    ),
    "multi-label": TaskRow(
        summary="k independent yes or no for an example, such as tags of a photo",
        targets="int[n, k] of 0 and 1",
        kind=BITS,
        axes=1,
        losses=("binary-crossentropy", "binary-focal-crossentropy", "mse"),
        metrics=("macro-f1", "micro-f1", "bit-accuracy", "auc", "average-precision"),
        activation="sigmoid",
        score_name="macro-F1",
    ),
    "sequence": TaskRow(
        summary="one of k classes at every step, such as the next character",
        targets="int[n, steps], classes from 0, −1 where there is none",
        kind=CLASSES,
        axes=1,
        losses=_AT_POSITIONS,
        metrics=("accuracy", "top-3", "perplexity", "macro-f1"),
        activation="softmax",
        score_name="accuracy over steps",
    ),
    "segmentation": TaskRow(
        summary="one of k classes at every pixel",
        targets="int[n, height, width], classes from 0, −1 where there is none",
        kind=CLASSES,
        axes=2,
        losses=_AT_POSITIONS,
        metrics=("mean-iou", "accuracy"),
        activation="softmax",
        score_name="mean IoU",
    ),
    "regression": TaskRow(
        summary="one or more numbers for an example",
        targets="float[n] or float[n, k]",
        kind=NUMBERS,
        axes=None,
        losses=_DISTANCES,
        metrics=("r2", "mae", "rmse"),
        score_name="R²",
    ),
    RECONSTRUCTION: TaskRow(
        summary="the input itself, through a narrow place: what is rebuilt badly is unusual",
        targets="none; the inputs are",
        kind=NUMBERS,
        axes=None,
        losses=_DISTANCES,
        metrics=("r2", "mse", "mae"),
        score_name="R² of the reconstruction",
    ),
}


def task_row(name: str) -> TaskRow:
    """Returns one row of `TASKS`, or that of a task of several heads, or of one with weights.

    Raises:
        ConfigError: There is no such task.
    """
    if of := weighted_of(name):
        row = task_row(of.task)
        return replace(row, kind=SEVERAL, axes=1, targets=f"{row.targets}, and a weight", heads=(), weighted=of)
    if name.startswith(MULTI_HEAD):
        return _row_of_heads(name)
    check_known("task", name, TASKS)
    return TASKS[name]


@functools.cache
def _row_of_heads(name: str) -> TaskRow:
    heads = heads_of(name)
    if not heads:
        raise ConfigError(f"task '{name}' needs heads: data with several targets, such as y.mood and y.pain of an .npz")
    for head in heads:
        check_known(f"task of head '{head.name}'", head.task, TASKS)
        if head.loss not in TASKS[head.task].losses:
            raise ConfigError(
                f"loss '{head.loss}' cannot train head '{head.name}', task '{head.task}': its losses are"
                f" {', '.join(TASKS[head.task].losses)}"
            )
    return TaskRow(
        summary="several of the other tasks at once, each by an output of the model",
        targets="those of its heads",
        kind=SEVERAL,
        axes=1,
        losses=(HEADS_LOSS,),
        metrics=(MEAN_SCORE, *(f"{head.name}/{metric}" for head in heads for metric in TASKS[head.task].metrics)),
        score_name="mean score of the heads",
        heads=heads,
    )


def bare(task: str) -> str:
    """Returns a task without the weights of its examples.

    >>> bare("weighted(regression:2)"), bare("regression")
    ('regression', 'regression')
    """
    of = weighted_of(task)
    return task if of is None else of.task


def classes_by_head(heads: Sequence[Head]) -> dict[str, int]:
    """Returns how many classes each head of classes tells apart: their weights lie end to end in this order."""
    return {head.name: max(head.answer[-1], 2) for head in heads if TASKS[head.task].kind == CLASSES}


def weights_by_head(heads: Sequence[Head], class_weights: Sequence[float]) -> dict[str, Sequence[float]]:
    """Returns each head's part of class weights that lie end to end; nothing for heads of no classes, or without any.

    Raises:
        ConfigError: There are some, and not one for each class.
    """
    sizes, at = classes_by_head(heads), 0
    if class_weights and len(class_weights) != sum(sizes.values()):
        told = ", ".join(f"{name} {classes}" for name, classes in sizes.items()) or "none"
        raise ConfigError(f"class-weights are one for each class of each head ({told}), got {len(class_weights)}")
    found: dict[str, Sequence[float]] = {head.name: () for head in heads}
    for name, classes in sizes.items():
        found[name] = class_weights[at : at + classes]
        at += classes
    return found


def can_train(task: str, loss: str) -> bool:
    """Returns whether a loss is one of a task's; whoever brings one of their own knows what it is for."""
    return loss in task_row(task).losses or is_own(loss) or registered("loss", loss) is not None


def decided(task: str, loss: str, default_loss: str) -> str:
    """Returns the loss that trains ``task``: the one asked for, or the task's own where that is but the default.

    Raises:
        ConfigError: ``loss`` was chosen and cannot train the task.

    >>> decided("regression", "sparse-categorical-crossentropy", "sparse-categorical-crossentropy")
    'mse'
    """
    row = task_row(task)
    if can_train(task, loss):
        return loss
    if loss == default_loss:
        return row.losses[0]
    raise ConfigError(f"train.loss '{loss}' cannot train task '{task}': its losses are {', '.join(row.losses)}")
