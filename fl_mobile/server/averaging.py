"""The mean of several rounds' models: it is what is evaluated and exported, and, if asked for, what clients get.

```
algorithm's step ─▶ model of the round ─▶ add ─▶ `ServerState.model`      evaluated, exported
                        ▲    └ the next step starts here                  published, with averaging-broadcast
```
Noise of single rounds averages out of it, as it would under a smaller step, without making the steps smaller (Polyak &
Juditsky, SIAM J. Control Optim. 1992; of the last k: Izmailov et al., UAI 2018). Where it is published, clients train
from the mean, and their updates are steps of the model that is averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_mobile.parameters import NoParameters, check_parameters, parameter
from fl_mobile.records import ITERATE, MODEL, ServerState
from fl_mobile.table import Table
from fl_mobile.tensors import Tensors

Memory = Mapping[str, Tensors]


@dataclass(frozen=True)
class Exponential:
    """[server] of the exponential mean."""

    averaging_decay: float = parameter(0.8, "part of the mean that a round leaves in it", above=0, below=1)
    averaging_broadcast: bool = parameter(False, "clients train from the mean, not from the last model")

    def __post_init__(self) -> None:
        check_parameters(self, "server")


@dataclass(frozen=True)
class Last:
    """[server] of the mean over the last rounds."""

    averaging_rounds: int = parameter(5, "how many; the checkpoint holds as many models", at_least=1, at_most=100)
    averaging_broadcast: bool = parameter(False, "clients train from the mean, not from the last model")

    def __post_init__(self) -> None:
        check_parameters(self, "server")


@dataclass(frozen=True)
class AveragingRow:
    """One row of `AVERAGINGS`.

    Attributes:
        add: Parameters, what is remembered (nothing at first) and a round's model → what is remembered now, with the
            mean under `records.MODEL`; None: there is no mean.
        summary: A line of help.
        parameters: The record of its parameters: keys of [server].
    """

    add: Callable[[Any, Memory, Tensors], Memory] | None
    summary: str
    parameters: type = NoParameters


def exponential(given: Exponential, memory: Memory, model: Tensors) -> Memory:
    """Returns ``a ← β·a + (1 − β)·w``; the first model is its own mean, the app's has no share."""
    if MODEL not in memory:
        return {MODEL: model}
    decay = given.averaging_decay
    mixed = {path: decay * memory[MODEL][path].astype(np.float64) + (1 - decay) * w for path, w in model.items()}
    return {MODEL: {path: value.astype(np.float32) for path, value in mixed.items()}}


def last(given: Last, memory: Memory, model: Tensors) -> Memory:
    """Returns the last models, oldest first, and their mean."""
    models = [*(memory[str(i)] for i in range(len(memory) - (MODEL in memory))), model][-given.averaging_rounds :]
    mean = {p: np.asarray(np.mean([m[p] for m in models], axis=0, dtype=np.float64), np.float32) for p in model}
    return {**{str(i): one for i, one in enumerate(models)}, MODEL: mean}


AVERAGINGS: Table[AveragingRow] = Table(
    "averaging",
    AveragingRow,
    {
        "none": AveragingRow(None, "the last model is the model"),
        "exponential": AveragingRow(
            exponential, "an exponential mean over rounds (Polyak & Juditsky 1992)", Exponential
        ),
        "last": AveragingRow(last, "the mean of the last rounds (Izmailov et al. 2018)", Last),
    },
)
"""``server.averaging`` → which mean over rounds is the model."""


@dataclass(frozen=True)
class Averaging:
    """A row with its parameters.

    >>> from fl_mobile.tensors import TensorSpec
    >>> state = ServerState(0, {"w": np.zeros(1, np.float32)}, {"w": TensorSpec((1,))})
    >>> for value in (1.0, 2.0, 6.0):
    ...     state = Averaging("last", Last(averaging_rounds=2)).follow(
    ...         replace(state, weights={"w": np.array([value], np.float32)})
    ...     )
    >>> state.weights["w"].tolist(), state.model["w"].tolist()
    ([6.0], [4.0])
    """

    name: str = "none"
    parameters: Any = field(default_factory=NoParameters)

    @property
    def broadcast(self) -> bool:
        """Whether clients train from the mean."""
        return bool(getattr(self.parameters, "averaging_broadcast", False))

    def iterate(self, state: ServerState) -> ServerState:
        """Returns the state whose weights the next step changes; statistics are those that were published."""
        if ITERATE not in state.averages:
            return state
        stepped = {p: v if state.spec[p].trainable else state.weights[p] for p, v in state.averages[ITERATE].items()}
        return replace(state, weights=stepped)

    def follow(self, state: ServerState) -> ServerState:
        """Returns the state after a step of it was taken: the mean holds its model, and is published if it shall be."""
        add = AVERAGINGS[self.name].add
        if add is None:
            return state
        memory = {name: tensors for name, tensors in state.averages.items() if name != ITERATE}
        averages = dict(add(self.parameters, memory, state.weights))
        if not self.broadcast:
            return replace(state, averages=averages)
        # A client's update of a statistic is relative to the published one, so there is no second series of them.
        mean = {p: v if state.spec[p].trainable else state.weights[p] for p, v in averages[MODEL].items()}
        return replace(state, weights=mean, averages={**averages, MODEL: mean, ITERATE: state.weights})
