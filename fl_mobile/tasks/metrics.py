"""Metrics from tallies: sums that are added over batches and devices, and give what all examples at once would give.

Definitions are scikit-learn's; the tests hold them against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError
from fl_mobile.table import Table, place_of, told_with_place
from fl_mobile.tasks.heads import MEAN_SCORE, Head
from fl_mobile.tasks.table import CLASSES, bare, task_row
from fl_mobile.tasks.tally import Tally, tally_of


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
    row = task_row(bare(task))
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
    return np.where(rows > 0, np.diag(tally["confusion"]) / _or_one(rows), np.nan)


def _or_one(counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, counts, 1)


def _share(name: str) -> Callable[[Tally, Any], float | None]:
    def of(tally: Tally, _: Any) -> float | None:
        entries = tally["count"].item() * (tally["true"].size if "true" in tally else 1)
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
    return float(np.mean(2 * both / _or_one(truths + told)))


def _micro_f1(tally: Tally, _: Any) -> float | None:
    return float(2 * tally["both"].sum() / _or_one(tally["true"].sum() + tally["told"].sum()))


def _balanced(tally: Tally, _: Any) -> float | None:
    return None if _confusion(tally) is None else float(np.nanmean(per_class_recall(tally)))


def _mean_iou(tally: Tally, _: Any) -> float | None:
    found = _confusion(tally)
    if found is None:
        return None
    both, truths, told = found
    return float(np.mean(both / (truths + told - both)))


def _perplexity(tally: Tally, _: Any) -> float | None:
    return math.exp(min(float(tally["nll"]) / tally["count"].item(), 700.0)) if tally["count"] else None


def _over_labels(
    of: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float],
) -> Callable[[Tally, Any], float | None]:
    """Returns a metric of ranked scores: the mean over labels of which some examples have it and some have not."""

    def metric(tally: Tally, _: Any) -> float | None:
        if "scores" not in tally:
            return None
        weight = tally.get("weights")
        counts = slice(None) if weight is None else weight > 0
        weight = None if weight is None else weight[counts]
        columns = zip(tally["scores"][counts].T, tally["truth"][counts].T, strict=True)
        found = [of(scores, truth, weight) for scores, truth in columns if truth.any() and not truth.all()]
        return float(np.mean(found)) if found else None

    return metric


def _auc(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray | None) -> float:
    """Returns the share of pairs in which the one that has the label scores higher, ties counting half."""
    values, place = np.unique(scores, return_inverse=True)
    weights = np.ones(len(truth)) if weight is None else weight
    yes, no = (np.bincount(place[part], weights[part], minlength=len(values)) for part in (truth, ~truth))
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))


def _average_precision(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray | None) -> float:
    values, place = np.unique(-scores, return_inverse=True)
    weights = np.ones(len(truth)) if weight is None else weight
    yes, every = (np.bincount(place[part], weights[part], minlength=len(values)) for part in (truth, slice(None)))
    return float((yes * np.cumsum(yes) / np.cumsum(every)).sum() / yes.sum())


def _r2(tally: Tally, size: np.ndarray) -> float | None:
    """Returns the share of the variance that is explained, outputs weighted by theirs."""
    if tally.get("examples", tally["count"]) < 2 or not tally["count"]:
        return None
    spread = np.maximum(tally["squares"] - np.square(tally["sum"]) / tally["count"].item(), 0.0)
    spread[spread <= 1e-12 * tally["squares"]] = 0.0  # a constant, but for rounding
    of, missed = float((spread * size**2).sum()), float((tally["squared"] * size**2).sum())
    return 1 - missed / of if of else float(missed == 0)


def _mae(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(tally["absolute"] * size) / tally["count"].item()) if tally["count"] else None


def _mse(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(tally["squared"] * size**2) / tally["count"].item()) if tally["count"] else None


def _rmse(tally: Tally, size: np.ndarray) -> float | None:
    return float(np.mean(np.sqrt(tally["squared"] / tally["count"].item()) * size)) if tally["count"] else None


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
