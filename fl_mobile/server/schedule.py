"""How much of its step the server takes in which round: one row of `SCHEDULES` a shape.

Noise that a codec or differential privacy adds to updates stays in the weights; a step that ends small averages it out
and costs no byte. At 988-fold compression a tail to 0.2 was worth half a point, and 0.2 without any
(docs/thousand.md). Codecs are compared under the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_mobile.parameters import NoParameters, check_parameters, parameter
from fl_mobile.records import ServerState
from fl_mobile.table import Table


@dataclass(frozen=True)
class Falling:
    """[server] of a schedule that falls towards the end."""

    schedule_start: float = parameter(
        0.5, "share of train.rounds after which the step begins to fall", at_least=0, below=1
    )
    schedule_end: float = parameter(
        0.2, "part of server.learning-rate that is left in the last round", above=0, at_most=1
    )

    def __post_init__(self) -> None:
        check_parameters(self, "server")


@dataclass(frozen=True)
class ScheduleRow:
    """One row of `SCHEDULES`.

    Attributes:
        fall: How far down the step is, 0 to 1, when it is so far between start and end, 0 to 1; None: it never falls.
        summary: A line of help.
        parameters: The record of its parameters: keys of [server].
    """

    fall: Callable[[float], float] | None
    summary: str
    parameters: type = NoParameters


SCHEDULES: Table[ScheduleRow] = Table(
    "server-schedule",
    ScheduleRow,
    {
        "constant": ScheduleRow(None, "the same step in every round"),
        "linear-tail": ScheduleRow(lambda p: p, "straight down from start to end", Falling),
        "cosine": ScheduleRow(lambda p: 0.5 - 0.5 * math.cos(math.pi * p), "half a cosine from start to end", Falling),
    },
)
"""``server.schedule`` → how the server's step changes over the run."""


@dataclass(frozen=True)
class Schedule:
    """A row with its parameters and the length of the run.

    >>> tail = Schedule("linear-tail", Falling(schedule_start=0.5, schedule_end=0.2), rounds=5)
    >>> [round(tail.factor(t), 3) for t in range(6)]
    [1.0, 1.0, 1.0, 0.6, 0.2, 0.2]
    """

    name: str = "constant"
    parameters: Any = field(default_factory=NoParameters)
    rounds: int = 1

    def factor(self, round_num: int) -> float:
        """Returns the part of the algorithm's step that the server takes in a round."""
        fall = SCHEDULES[self.name].fall
        if fall is None:
            return 1.0
        start, end = self.parameters.schedule_start, self.parameters.schedule_end
        progress = min(round_num / (self.rounds - 1), 1.0) if self.rounds > 1 else 1.0
        return 1.0 - (1.0 - end) * fall(max(0.0, (progress - start) / (1.0 - start)))


def scaled(before: ServerState, after: ServerState, factor: float) -> ServerState:
    """Returns ``after`` with a part of the way from ``before``; statistics and slots go the whole one.

    Whatever the algorithm: its step is what it would be with so much less of server.learning-rate.
    """
    if factor == 1.0:
        return after
    part = np.float32(factor)
    moved = {
        path: value + part * (after.weights[path] - value) if after.spec[path].trainable else after.weights[path]
        for path, value in before.weights.items()
    }
    return replace(after, weights=moved)
