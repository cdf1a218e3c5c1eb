"""Is the artifact as good as the model at its task? The task's metrics on the same held-out examples, from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.convert.tolerances import Tolerance
from fl_mobile.tasks import measured, tally_of, task_row

SHARE_OF_SCORE = 0.02
"""Of the score that a recipe with 8-bit weights may lose, where that is more than a point."""

_EIGHT_BITS = 0.01


@dataclass(frozen=True)
class TaskTargets:
    """What held-out examples should be answered with.

    Attributes:
        task: Row of `fl_mobile.tasks.TASKS`.
        y: Targets ``[n, …]`` as the artifact answers: probabilities of classes and tags, numbers in their own units.
    """

    task: str
    y: np.ndarray

    def metrics(self, rows: np.ndarray) -> dict[str, float]:
        """Returns the task's metrics of answers ``float[n, …]``."""
        return measured(self.task, tally_of(self.task, self.y, rows, from_logits=False))

    def compared(self, rows: np.ndarray, keras_rows: np.ndarray) -> dict[str, tuple[float, float]]:
        """Returns, for every metric that both have, Keras' value and the artifact's; the score first."""
        theirs, ours = self.metrics(keras_rows), self.metrics(rows)
        return {name: (value, ours[name]) for name, value in theirs.items() if name in ours}


def score_failures(task: str, found: Mapping[str, tuple[float, float]], tolerance: Tolerance, count: int) -> list[str]:
    """Returns in words what an artifact lost of its task's score beyond what its recipe may.

    Args:
        task: Row of `fl_mobile.tasks.TASKS`.
        found: `TaskTargets.compared`.
        tolerance: Of the recipe. One example of few is always forgiven.
        count: Number of examples.
    """
    name = task_row(task).metrics[0]
    if name not in found:
        return []
    theirs, ours = found[name]
    share = SHARE_OF_SCORE * abs(theirs) if tolerance.accuracy_drop >= _EIGHT_BITS else 0.0
    allowed = max(tolerance.accuracy_drop, share, 1 / count)
    return [] if ours >= theirs - allowed else [f"{name} {ours:.4f}, Keras {theirs:.4f}, allowed to lose {allowed:.2g}"]
