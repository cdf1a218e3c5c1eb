"""What metrics promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from device_sim.check.law import SEED, ask
from fl_mobile.tasks import TASKS, Tally, tally_of
from fl_mobile.tasks.table import BITS, CLASSES

_SHAPES = {"classification": (60,), "multi-label": (60, 4), "sequence": (20, 6), "segmentation": (8, 5, 5)}
_CLASSES = 4


def _tallies(right: bool) -> Iterator[tuple[str, Tally]]:
    """Yields each task with the tally of right answers, or of answers at random."""
    rng = np.random.default_rng(SEED)
    for task, row in TASKS.items():
        shape = _SHAPES.get(task, (60, 2))
        if row.kind == CLASSES:
            y: np.ndarray = rng.integers(0, _CLASSES, shape)
            perfect: np.ndarray = np.eye(_CLASSES)[y] * 9
        elif row.kind == BITS:
            y = rng.integers(0, 2, shape)
            perfect = 18.0 * y - 9
        else:
            y = perfect = rng.standard_normal(shape)
        out = perfect if right else rng.standard_normal(perfect.shape)
        yield task, tally_of(task, y, out.astype(np.float32), from_logits=True)


def _told(row: Any, right: bool) -> dict[str, float]:
    found = {}
    for task, tally in _tallies(right):
        try:
            value = row.of(tally, np.ones(1))
        except KeyError:  # another task's tally
            continue
        ask(value is None or not np.ndim(value), f"of task '{task}' it gave shape {np.shape(value)}, expected a number")
        if value is not None:
            found[task] = float(value)
    return found


def metric_is_told(row: Any, name: str) -> None:
    found = _told(row, right=True) | _told(row, right=False)
    ask(found, f"it tells nothing of any task: {', '.join(TASKS)}")
    for task, value in found.items():
        ask(np.isfinite(value), f"of task '{task}' it is {value}")


def metric_rises(row: Any, name: str) -> None:
    right, random = _told(row, right=True), _told(row, right=False)
    sign = 1 if row.larger_is_better else -1
    for task in right.keys() & random.keys():
        told = f"of task '{task}' it is {right[task]:g} of right answers and {random[task]:g} of answers at random"
        ask(sign * right[task] >= sign * random[task], told)
