"""Tallies: what of a batch of answers every metric is computed from; sums are added over batches and devices.

A tally is a dictionary of arrays. Two are added entry by entry, except for `RANKED`: AUC and average precision order
all answers, so those are kept. With weights every example counts as often as it weighs; ``examples`` is how many weigh
more than 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from fl_mobile.tasks.heads import Head, answers_of, targets_of
from fl_mobile.tasks.table import BITS, CLASSES, TaskRow, task_row
from fl_mobile.tasks.weighted import parted

Tally = dict[str, np.ndarray]

RANKED = ("scores", "truth", "weights")
"""Entries that are laid end to end: ``float64[n, k]`` scores, ``bool[n, k]`` truth, ``float64[n]`` weights if any."""

DISTANCES = ("mse", "mae", "huber")
"""Losses that take answers as they come: what they pull to 0 and 1 turns at ½."""

MOST_CLASSES = 1024
"""With more classes no confusion matrix is kept, and what needs one is not told."""


def tally_of(
    task: str,
    y: np.ndarray,
    out: np.ndarray,
    *,
    from_logits: bool,
    middle: float | None = None,
    weight: np.ndarray | None = None,
) -> Tally:
    """Returns the tally of a batch, every example counting as often as it weighs: scikit-learn's ``sample_weight``.

    Args:
        task: Row of `TASKS`.
        y: Targets, ``[n, …]``.
        out: What the model answered, ``float32[n, …]``.
        from_logits: Whether outputs still need softmax or sigmoid.
        middle: Where a lone output of two classes turns from the first to the second, and a tag from no to yes;
            by default 0 for logits, else ½. Of several heads each has its default.
        weight: ``float32[n]``; None is 1, and of a task with weights they stand in ``y``.
    """
    row = task_row(task)
    if of := row.weighted:
        truth, own = parted(of, y, partial(whole_classes, of.task))
        return tally_of(of.task, truth, out, from_logits=from_logits, middle=middle, weight=own)
    weight = None if weight is None else weight.astype(np.float64)
    found: Tally = {} if weight is None else {"examples": np.array(np.count_nonzero(weight))}
    if row.heads:
        return found | _of_heads(row.heads, y, out, from_logits=from_logits, weight=weight)
    middle = (0.0 if from_logits else 0.5) if middle is None else middle
    if row.kind == CLASSES:
        return found | _of_classes(row, y, out, from_logits=from_logits, middle=middle, weight=weight)
    flat, truth = (np.asarray(a, np.float64).reshape(len(y), -1) for a in (out, y))
    if row.kind == BITS:
        return found | _of_bits(truth > 0.5, flat, middle, weight)
    error = flat - truth
    return found | {
        "count": _count(truth, weight),
        "sum": _summed(truth, weight),
        "squares": _summed(np.square(truth), weight),
        "absolute": _summed(np.abs(error), weight),
        "squared": _summed(np.square(error), weight),
    }


def whole_classes(task: str, values: np.ndarray) -> np.ndarray:
    """Returns targets that lay in a row of float32: class numbers as integers again, others as they are."""
    return values.astype(np.int64) if task_row(task).kind == CLASSES else values


def _summed(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Returns the sum of values ``[n, …]`` over examples, each as often as it weighs."""
    return np.asarray(values.sum(axis=0) if weight is None else (values.T * weight).T.sum(axis=0))


def _count(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return np.array(len(values) if weight is None else weight.sum())


def _of_heads(
    heads: Sequence[Head], y: np.ndarray, out: np.ndarray, *, from_logits: bool, weight: np.ndarray | None
) -> Tally:
    """Returns the entries of each head's tally as ``head/entry``; a distance takes its answers as they are."""
    found: Tally = {"count": _count(y, weight)}
    truths, answers = targets_of(heads, y), answers_of(heads, out)
    for head in heads:
        truth = whole_classes(head.task, truths[head.name])
        logits = from_logits and head.loss not in DISTANCES
        tally = tally_of(head.task, truth, answers[head.name], from_logits=logits, weight=weight)
        found |= {f"{head.name}/{entry}": value for entry, value in tally.items()}
    return found


def _of_classes(
    row: TaskRow, y: np.ndarray, out: np.ndarray, *, from_logits: bool, middle: float, weight: np.ndarray | None
) -> Tally:
    rows, truth = out.reshape(-1, out.shape[-1]), y.reshape(-1)
    real = truth >= 0 if row.padded else slice(None)
    weight = None if weight is None else np.repeat(weight, truth.size // max(len(y), 1))[real]
    rows, truth = rows[real], truth[real]
    lone = out.shape[-1] == 1
    answer = (rows[:, 0] > middle).astype(np.int64) if lone else rows.argmax(axis=1)
    classes = 2 if lone else out.shape[-1]
    found: Tally = {"count": _count(truth, weight), "right": _summed(answer == truth, weight)}
    if classes <= MOST_CLASSES:
        cells = np.bincount(truth * classes + answer, weight, minlength=classes * classes)
        found["confusion"] = cells.reshape(classes, classes)
    if classes > 3 and len(truth):
        own = rows[np.arange(len(truth)), truth][:, None]
        found["top3"] = _summed((rows > own).sum(axis=1) < 3, weight)
    if "perplexity" in row.metrics:
        found["nll"] = _summed(_surprise(rows.astype(np.float64), truth, from_logits), weight)
    if classes == 2 and "auc" in row.metrics:
        score = rows[:, 0] if lone else rows[:, 1].astype(np.float64) - rows[:, 0]
        found["scores"], found["truth"] = score.astype(np.float64)[:, None], (truth == 1)[:, None]
        found |= {} if weight is None else {"weights": weight}
    return found


def _surprise(rows: np.ndarray, truth: np.ndarray, from_logits: bool) -> np.ndarray:
    """Returns the negative log-likelihood of every answer, in nats."""
    own = rows[np.arange(len(truth)), truth]
    if not from_logits:
        return np.asarray(-np.log(np.maximum(own, 1e-12)))
    top = rows.max(axis=1)
    return np.asarray(top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - own)


def _of_bits(truth: np.ndarray, scores: np.ndarray, middle: float, weight: np.ndarray | None) -> Tally:
    told = scores > middle
    return {
        "count": _count(truth, weight),
        "both": _summed(truth & told, weight),
        "true": _summed(truth, weight),
        "told": _summed(told, weight),
        "right": np.asarray(_summed(truth == told, weight).sum()),
        "scores": scores,
        "truth": truth,
        **({} if weight is None else {"weights": weight}),
    }


def added(tallies: Iterable[Mapping[str, np.ndarray]]) -> Tally:
    """Returns the tally of all examples of several tallies of one task; an empty one of none."""
    total: Tally = {}
    for one in tallies:
        for name, value in one.items():
            if name not in total:
                total[name] = value
            else:
                total[name] = _both(name, total[name], value)
    return total


def _both(name: str, before: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.concatenate([before, value]) if name.rpartition("/")[2] in RANKED else before + value
