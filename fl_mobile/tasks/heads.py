"""Several tasks of one model: its heads, spelled in the name of the task, as codecs are spelled in theirs.

```
multi-head(mood=classification:-:3:sparse-categorical-crossentropy*1,pain=regression:1:1:mse*0.5)
           head task           target answer  loss               weight     dimensions joined by x, - of a lone class
```
Whatever carries a task and its arrays carries such a one: targets of an example lie end to end in one row of float32,
heads in this order, and so do the answers. A class number below 2^24 is exact there.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError

MULTI_HEAD = "multi-head"
MEAN_SCORE = "mean-score"
"""What ``stop`` and ``keep-by`` watch: the mean of the heads' scores, weighted as their losses are."""

HEADS_LOSS = "sum-of-heads"

_HEAD = re.compile(r"(\w+)=([a-z-]+):(-|\d+(?:x\d+)*):(\d+(?:x\d+)*):([\w.:-]+)\*([\d.e+-]+)")


@dataclass(frozen=True)
class Head:
    """One answer of a model that gives several.

    Attributes:
        name: The key of its target, of its output and of its metrics.
        task: Row of `TASKS`.
        target: Shape of one example's target.
        answer: Shape of the model's answer to one example.
        loss: Row of `fl_mobile.local.LOSSES`.
        weight: What its loss is multiplied by in the sum.
    """

    name: str
    task: str
    target: tuple[int, ...]
    answer: tuple[int, ...]
    loss: str
    weight: float = 1.0

    @property
    def text(self) -> str:
        """How it is spelled in the name of a task."""
        sizes = ("x".join(map(str, shape)) or "-" for shape in (self.target, self.answer))
        return f"{self.name}={self.task}:{':'.join(sizes)}:{self.loss}*{self.weight:g}"


def multi_head(heads: Sequence[Head]) -> str:
    """Returns the name of the task of several heads.

    >>> multi_head([Head("pain", "regression", (1,), (1,), "mse", 0.5)])
    'multi-head(pain=regression:1:1:mse*0.5)'
    """
    return f"{MULTI_HEAD}({','.join(head.text for head in heads)})"


@functools.cache
def heads_of(task: str) -> tuple[Head, ...]:
    """Returns the heads of a task; none of a row of `TASKS`.

    Raises:
        ConfigError: It is spelled otherwise.

    >>> heads_of("multi-head(a=sequence:4:4x7:sparse-categorical-crossentropy*1)")[0].answer
    (4, 7)
    """
    if not task.startswith(f"{MULTI_HEAD}("):
        return ()
    parts = [_HEAD.fullmatch(part) for part in task[len(MULTI_HEAD) + 1 : -1].split(",")]
    if not task.endswith(")") or not all(parts):
        raise ConfigError(f"task '{task}': expected {MULTI_HEAD}(name=task:target:answer:loss*weight, …)")
    return tuple(_head(*part.groups()) for part in parts if part)


def _head(name: str, task: str, target: str, answer: str, loss: str, weight: str) -> Head:
    shapes = [() if text == "-" else tuple(map(int, text.split("x"))) for text in (target, answer)]
    return Head(name, task, shapes[0], shapes[1], loss, float(weight))


def joined(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns arrays ``[n, …]`` end to end, ``float32[n, numbers]``, in the order of the mapping."""
    rows = [np.reshape(part, (len(part), -1)).astype(np.float32) for part in parts.values()]
    return np.ascontiguousarray(np.concatenate(rows, axis=1))


def targets_of(heads: Sequence[Head], y: Any) -> dict[str, Any]:
    """Returns each head's part of joined targets, ``[n, *target]``, of an array or a tensor."""
    return _cut(y, [(head.name, head.target) for head in heads])


def answers_of(heads: Sequence[Head], out: Any) -> dict[str, Any]:
    """Returns each head's part of joined answers, ``[n, *answer]``, of an array or a tensor."""
    return _cut(out, [(head.name, head.answer) for head in heads])


def _cut(rows: Any, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    found, at = {}, 0
    for name, shape in shapes:
        size = math.prod(shape)
        part = rows[:, at : at + size]
        if isinstance(rows, np.ndarray):
            found[name] = part.reshape(len(rows), *shape)
        else:
            found[name] = _reshaped(part, shape)
        at += size
    return found


def _reshaped(part: Any, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    return tf.reshape(part, (-1, *shape))
