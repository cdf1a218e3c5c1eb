"""A weight for every example of a task, spelled in the name of the task, as heads are.

```
weighted(classification:-)      weighted(sequence:40)      weighted(regression:2)
         task           shape of one example's target, dimensions joined by x, - of a lone class
```
Whatever carries a task and its arrays carries such a one: the numbers of a target lie end to end in a row of float32,
and the weight is the last of the row. A class number below 2^24 is exact there. It multiplies the loss of its example;
a batch's mean is over its examples, whatever they weigh, as Keras' ``sum_over_batch_size``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError, DataError

_SPELLED = re.compile(r"weighted\((.+):(-|\d+(?:x\d+)*)\)")


@dataclass(frozen=True)
class Weighted:
    """What lies in a row of weighted targets.

    Attributes:
        task: Row of `TASKS`, or a task of several heads.
        target: Shape of one example's target.
    """

    task: str
    target: tuple[int, ...]


def weighted(task: str, target: tuple[int, ...]) -> str:
    """Returns the name of a task whose examples have weights.

    >>> weighted("segmentation", (8, 8))
    'weighted(segmentation:8x8)'
    """
    return f"weighted({task}:{'x'.join(map(str, target)) or '-'})"


@functools.cache
def weighted_of(task: str) -> Weighted | None:
    """Returns what a task with weights is made of; None of one without.

    Raises:
        ConfigError: It is spelled otherwise.

    >>> weighted_of("weighted(regression:2)")
    Weighted(task='regression', target=(2,))
    """
    if not task.startswith("weighted("):
        return None
    found = _SPELLED.fullmatch(task)
    if found is None:
        raise ConfigError(f"task '{task}': expected weighted(task:target), the target's dimensions joined by x")
    return Weighted(found[1], () if found[2] == "-" else tuple(map(int, found[2].split("x"))))


def with_weights(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns targets ``[n, …]`` and weights ``float32[n]`` in rows, ``float32[n, m + 1]``.

    >>> with_weights(np.array([3, 0]), np.array([1, 0.5], np.float32)).tolist()
    [[3.0, 1.0], [0.0, 0.5]]
    """
    rows = y.reshape(len(y), -1).astype(np.float32)
    return np.concatenate([rows, weight.astype(np.float32)[:, None]], axis=1)


def parted(of: Weighted, rows: Any, whole: Callable[[Any], Any] | None) -> tuple[Any, Any]:
    """Returns targets ``[n, *target]`` and weights ``[n]`` of rows, of an array or a tensor.

    Args:
        whole: What makes class numbers integers again; None where targets are no classes.
    """
    flat, weight = rows[:, :-1], rows[:, -1]
    if isinstance(rows, np.ndarray):
        y = flat.reshape(len(rows), *of.target)
    else:
        import tensorflow as tf

        y = tf.reshape(flat, (-1, *of.target))
    return (y if whole is None else whole(y)), weight


def checked_weights(what: str, weight: np.ndarray, examples: int) -> np.ndarray:
    """Returns ``float32[n]``, one weight an example.

    Args:
        what: Starts messages: the file and what it calls them.

    Raises:
        DataError: They are no numbers, not one an example, below 0, not finite, or all 0.
    """
    if weight.dtype.kind not in "iufb" or weight.shape != (examples,):
        raise DataError(f"{what} is {weight.dtype}{weight.shape}, expected one number for each of {examples} examples.")
    with np.errstate(over="ignore"):
        found = weight.astype(np.float32)
    odd = ~np.isfinite(found) | (found < 0)
    if odd.any():
        at = int(np.argmax(odd))
        raise DataError(
            f"{what} is {weight[at]} at example {at}, and {int(odd.sum()) - 1} more are odd: weights are finite and at"
            " least 0; 0 leaves an example out."
        )
    if not found.any():
        raise DataError(f"{what} is 0 for all {examples} examples: nothing would be learnt, or told.")
    return found
