"""Metrics from tallies: sums that are added over batches and devices, and give what all examples at once would give.

A tally is a dictionary of arrays. Two are added entry by entry, except for `RANKED`: AUC and average precision order
all answers, so those are kept. Definitions are scikit-learn's; the tests hold them against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError
from fl_mobile.table import Table, place_of, told_with_place
from fl_mobile.tasks.heads import MEAN_SCORE, Head, answers_of, targets_of
from fl_mobile.tasks.table import BITS, CLASSES, TaskRow, task_row

Tally = dict[str, np.ndarray]

RANKED = ("scores", "truth")
"""Entries that are laid end to end: ``float64[n, k]`` scores and ``bool[n, k]`` truth."""

DISTANCES = ("mse", "mae", "huber")
"""Losses that take answers as they come: what they pull to 0 and 1 turns at ½."""

MOST_CLASSES = 1024
"""With more classes no confusion matrix is kept, and what needs one is not told."""


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    Attributes:
        of: Tally, and for numbers the size of a unit ``float64[k]`` → value, or None where it is undefined.
        larger_is_better: Otherwise smaller is.
        share: Whether it is a share of 1, told in per cent.
    """

    of: Callable[[Tally, np.ndarray], float | None]
    larger_is_better: bool = True
    share: bool = True


def tally_of(task: str, y: np.ndarray, out: np.ndarray, *, from_logits: bool, middle: float | None = None) -> Tally:
    """Returns the tally of a batch.

    Args:
        task: Row of `TASKS`.
        y: Targets, ``[n, …]``.
        out: What the model answered, ``float32[n, …]``.
        from_logits: Whether outputs still need softmax or sigmoid.
        middle: Where a lone output of two classes turns from the first to the second, and a tag from no to yes;
            by default 0 for logits, else ½. Of several heads each has its default.
    """
    row = task_row(task)
    if row.heads:
        return _of_heads(row.heads, y, out, from_logits=from_logits)
    middle = (0.0 if from_logits else 0.5) if middle is None else middle
    if row.kind == CLASSES:
        return _of_classes(row, y, out, from_logits=from_logits, middle=middle)
    flat, truth = (np.asarray(a, np.float64).reshape(len(y), -1) for a in (out, y))
    if row.kind == BITS:
        return _of_bits(truth > 0.5, flat, middle)
    error = flat - truth
    return {
        "count": np.array(len(y)),
        "sum": truth.sum(axis=0),
        "squares": np.square(truth).sum(axis=0),
        "absolute": np.abs(error).sum(axis=0),
        "squared": np.square(error).sum(axis=0),
    }


def _of_heads(heads: Sequence[Head], y: np.ndarray, out: np.ndarray, *, from_logits: bool) -> Tally:
    """Returns the entries of each head's tally as ``head/entry``; a distance takes its answers as they are."""
    found: Tally = {"count": np.array(len(y))}
    truths, answers = targets_of(heads, y), answers_of(heads, out)
    for head in heads:
        truth = truths[head.name]
        truth = truth.astype(np.int64) if task_row(head.task).kind == CLASSES else truth
        logits = from_logits and head.loss not in DISTANCES
        tally = tally_of(head.task, truth, answers[head.name], from_logits=logits)
        found |= {f"{head.name}/{entry}": value for entry, value in tally.items()}
    return found


def _measured_heads(heads: Sequence[Head], tally: Tally) -> dict[str, float]:
    """Returns the metrics of every head as ``head/metric``, before them the mean of the scores that are defined."""
    found: dict[str, float] = {}
    scores: list[tuple[float, float]] = []
    for head in heads:
        prefix = f"{head.name}/"
        own = measured(head.task, {k[len(prefix) :]: v for k, v in tally.items() if k.startswith(prefix)})
        found |= {prefix + name: value for name, value in own.items()}
        score = own.get(task_row(head.task).metrics[0])
        scores += [] if score is None else [(head.weight, score)]
    total = sum(weight for weight, _ in scores)
    return {MEAN_SCORE: sum(w * s for w, s in scores) / total, **found} if total else found


def _of_classes(row: TaskRow, y: np.ndarray, out: np.ndarray, *, from_logits: bool, middle: float) -> Tally:
    rows, truth = out.reshape(-1, out.shape[-1]), y.reshape(-1)
    rows, truth = (rows[truth >= 0], truth[truth >= 0]) if row.padded else (rows, truth)
    lone = out.shape[-1] == 1
    answer = (rows[:, 0] > middle).astype(np.int64) if lone else rows.argmax(axis=1)
    classes = 2 if lone else out.shape[-1]
    found: Tally = {"count": np.array(len(truth)), "right": np.array(int((answer == truth).sum()))}
    if classes <= MOST_CLASSES:
        cells = np.bincount(truth * classes + answer, minlength=classes * classes)
        found["confusion"] = cells.reshape(classes, classes)
    if classes > 3 and len(truth):
        own = rows[np.arange(len(truth)), truth][:, None]
        found["top3"] = np.array(int(((rows > own).sum(axis=1) < 3).sum()))
    if "perplexity" in row.metrics:
        found["nll"] = np.array(_surprise(rows.astype(np.float64), truth, from_logits))
    if classes == 2 and "auc" in row.metrics:
        score = rows[:, 0] if lone else rows[:, 1].astype(np.float64) - rows[:, 0]
        found["scores"], found["truth"] = score.astype(np.float64)[:, None], (truth == 1)[:, None]
    return found


def _surprise(rows: np.ndarray, truth: np.ndarray, from_logits: bool) -> float:
    """Returns the summed negative log-likelihood, in nats."""
    if not len(truth):
        return 0.0
    own = rows[np.arange(len(truth)), truth]
    if not from_logits:
        return float(-np.log(np.maximum(own, 1e-12)).sum())
    top = rows.max(axis=1)
    return float((top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - own).sum())


def _of_bits(truth: np.ndarray, scores: np.ndarray, middle: float) -> Tally:
    told = scores > middle
    return {
        "count": np.array(len(truth)),
        "both": (truth & told).sum(axis=0),
        "true": truth.sum(axis=0),
        "told": told.sum(axis=0),
        "right": np.array(int((truth == told).sum())),
        "scores": scores,
        "truth": truth,
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


def measured(
    task: str, tally: Tally, units: np.ndarray | None = None, *, further: Sequence[str] = ()
) -> dict[str, float]:
    """Returns the metrics of a task that are defined, by name; the task's score first.

    Args:
        task: Row of `TASKS`.
        tally: Of all examples.
        units: For numbers that are standardised: how large one unit of each is, ``float64[k]``.
        further: Names of `METRICS` that are told beside the task's own.

    Raises:
        ConfigError: One of the further metrics raised, or gave no number; names file and line.
    """
    row = task_row(task)
    if row.heads:
        return _measured_heads(row.heads, tally)
    size = np.ones(1) if units is None else np.asarray(units, np.float64)
    names = row.metrics
    found = {name: METRICS[name].of(tally, size) for name in names}
    found |= {name: _asked(task, name, tally, size) for name in further if name not in names}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _asked(task: str, name: str, tally: Tally, size: np.ndarray) -> float | None:
    """Returns one metric, which may be of somebody's own, or of another task."""
    metric = METRICS[name]
    try:
        value = metric.of(tally, size)
    except Exception as error:
        has = f" The tally of task '{task}' has: {', '.join(tally)}." if isinstance(error, KeyError) else ""
        raise ConfigError(f"metric {name}: {told_with_place(error)}.{has}") from error
    if value is not None and np.ndim(value):
        raise ConfigError(f"metric {name}: expected a number or None, got shape {np.shape(value)}{place_of(metric.of)}")
    return None if value is None else float(value)


def check_further(task: str, names: Sequence[str], y: np.ndarray, classes: int) -> None:
    """Asks every further metric of one answer of zeros to a few targets, so that its mistakes are told before training.

    Args:
        task: Row of `TASKS`.
        names: Names of `METRICS`.
        y: A few targets ``[n, …]``, as `prepared`.
        classes: How many, where targets are classes.

    Raises:
        ConfigError: One raised, or gave no number; names file and line. Or the task has several heads.
    """
    if names and task_row(task).heads:
        raise ConfigError(
            f"output.metrics ({', '.join(names)}): of several heads each is told by the metrics of its own task;"
            " leave the key out"
        )
    if names:
        out = np.zeros((*y.shape, max(classes, 2)) if task_row(task).kind == CLASSES else y.shape, np.float32)
        measured(task, tally_of(task, y, out, from_logits=True), further=names)


def told(task: str, score: float) -> str:
    """Returns a task's score for people, a share in per cent.

    >>> told("classification", 0.9123), told("regression", 0.4871)
    ('91.23%', '0.4871')
    """
    return f"{score:.2%}" if metric_row(task_row(task).metrics[0]).share else f"{score:.4f}"


def metric_row(name: str) -> Metric:
    """Returns the row of a metric, of a head's too.

    >>> metric_row("pain/mae").larger_is_better
    False
    """
    return _MEAN_OF_HEADS if name == MEAN_SCORE else METRICS[name.rpartition("/")[2] if "/" in name else name]


def per_class_recall(tally: Tally) -> np.ndarray:
    """Returns ``float64[k]``: of the examples of each class the share that was told so; NaN where there is none."""
    rows = tally["confusion"].sum(axis=1)
    return np.where(rows > 0, np.diag(tally["confusion"]) / np.maximum(rows, 1), np.nan)


def _share(name: str) -> Callable[[Tally, Any], float | None]:
    def of(tally: Tally, _: Any) -> float | None:
        entries = int(tally["count"]) * (tally["true"].size if "true" in tally else 1)
        return float(tally[name] / entries) if name in tally and entries else None

    return of


def _confusion(tally: Tally) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns right answers, truths and answers of each class that is among either; None where there is no matrix."""
    if "confusion" not in tally or not tally["count"]:
        return None
    table = tally["confusion"]
    truths, told = table.sum(axis=1), table.sum(axis=0)
    seen = truths + told > 0
    return np.diag(table)[seen], truths[seen], told[seen]


def _macro_f1(tally: Tally, _: Any) -> float | None:
    found = (tally["both"], tally["true"], tally["told"]) if "both" in tally else _confusion(tally)
    if found is None:
        return None
    both, truths, told = found
    return float(np.mean(2 * both / np.maximum(truths + told, 1)))


def _micro_f1(tally: Tally, _: Any) -> float | None:
    return float(2 * tally["both"].sum() / max(int(tally["true"].sum() + tally["told"].sum()), 1))


def _balanced(tally: Tally, _: Any) -> float | None:
    return None if _confusion(tally) is None else float(np.nanmean(per_class_recall(tally)))


def _mean_iou(tally: Tally, _: Any) -> float | None:
    found = _confusion(tally)
    if found is None:
        return None
    both, truths, told = found
    return float(np.mean(both / (truths + told - both)))


def _perplexity(tally: Tally, _: Any) -> float | None:
    return math.exp(min(float(tally["nll"]) / int(tally["count"]), 700.0)) if tally["count"] else None


def _over_labels(of: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Tally, Any], float | None]:
    """Returns a metric of ranked scores: the mean over labels of which some examples have it and some have not."""

    def metric(tally: Tally, _: Any) -> float | None:
        if "scores" not in tally:
            return None
        columns = zip(tally["scores"].T, tally["truth"].T, strict=True)
        found = [of(scores, truth) for scores, truth in columns if truth.any() and not truth.all()]
        return float(np.mean(found)) if found else None

    return metric


def _auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the share of pairs in which the one that has the label scores higher, ties counting half."""
    values, place = np.unique(scores, return_inverse=True)
    yes, no = (np.bincount(place[part], minlength=len(values)).astype(np.float64) for part in (truth, ~truth))
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    values, place = np.unique(-scores, return_inverse=True)
    yes, every = np.bincount(place[truth], minlength=len(values)), np.bincount(place, minlength=len(values))
    return float((yes * np.cumsum(yes) / np.cumsum(every)).sum() / yes.sum())


def _r2(tally: Tally, size: np.ndarray) -> float | None:
    """Returns the share of the variance that is explained, outputs weighted by theirs."""
    if tally["count"] < 2:
        return None
    spread = np.maximum(tally["squares"] - np.square(tally["sum"]) / int(tally["count"]), 0.0)
    spread[spread <= 1e-12 * tally["squares"]] = 0.0  # a constant, but for rounding
    of, missed = float((spread * size**2).sum()), float((tally["squared"] * size**2).sum())
    return 1 - missed / of if of else float(missed == 0)


def _mae(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(tally["absolute"] * size) / int(tally["count"])) if tally["count"] else None


def _mse(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(tally["squared"] * size**2) / int(tally["count"])) if tally["count"] else None


def _rmse(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(np.sqrt(tally["squared"] / int(tally["count"])) * size)) if tally["count"] else None


METRICS: Table[Metric] = Table(
    "metric",
    Metric,
    {
        "accuracy": Metric(_share("right")),
        "bit-accuracy": Metric(_share("right")),
        "top-3": Metric(_share("top3")),
        "macro-f1": Metric(_macro_f1),
        "micro-f1": Metric(_micro_f1),
        "balanced-accuracy": Metric(_balanced),
        "mean-iou": Metric(_mean_iou),
        "auc": Metric(_over_labels(_auc), share=False),
        "average-precision": Metric(_over_labels(_average_precision), share=False),
        "perplexity": Metric(_perplexity, larger_is_better=False, share=False),
        "r2": Metric(_r2, share=False),
        "mae": Metric(_mae, larger_is_better=False, share=False),
        "mse": Metric(_mse, larger_is_better=False, share=False),
        "rmse": Metric(_rmse, larger_is_better=False, share=False),
    },
)
"""One of somebody's own reads the same tallies: ``of(tally, units)``, with the entries of `tally_of`."""

_MEAN_OF_HEADS = Metric(lambda tally, _: None, share=False)
"""`_measured_heads` computes it."""
