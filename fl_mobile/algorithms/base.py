"""What an algorithm is, and the step every server optimizer shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fl_mobile.local.optimizers import OPTIMIZERS
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.records import FitPlan, ServerState
from fl_mobile.tensors import Spec, Tensors


@dataclass(frozen=True)
class ServerPlan:
    """[server] for every algorithm; one with more parameters extends this record, in its own file."""

    learning_rate: float = parameter(1.0, "server step; 1 is plain averaging, adaptive rules want 0.01 to 0.1", above=0)

    def __post_init__(self) -> None:
        check_parameters(self, "server")


@dataclass(frozen=True)
class Mean:
    """What the updates of one server step come to.

    Attributes:
        delta: ``Σ nΔ / Σ n`` over the accepted updates Δ with weights n, less what was foreseen (`ControlVariate`).
        per_step: ``Σ nΔ/τ / Σ n``, trainable tensors only, τ being `FitPlan.local_steps` of each device; empty
            unless the algorithm asks for it.
        steps: ``Σ nτ / Σ n``.
        share: Weight of the accepted updates / weight of all clients of the federation.
        sent: What travelled down beside the model, as devices decoded it.
        learning_rate: Local step size η of the round.
    """

    delta: Tensors
    per_step: Tensors = field(default_factory=dict)
    steps: float = 1.0
    share: float = 1.0
    sent: Tensors = field(default_factory=dict)
    learning_rate: float = 0.0


@dataclass(frozen=True)
class ControlVariate:
    """What a client keeps between rounds, and what it does to its training and to its packet.

    Only what was counted is kept, as the server decoded it: server and clients then agree on the sum of all of it. It
    is used again in every later round, so what a lossy codec leaves out has to die away: `Codec.contracts`.

    Attributes:
        pull: What the server sent beside the model and what the client kept → what is added to every step's gradient.
        keep: What the client kept, what its packet decodes to, and Kη, its local steps times their learning rate → what
            it keeps from now on.
        foreseen: What the server sent and η → what both ends expect one local step of any client to be. The packet
            holds the update less K times this; ``apply`` adds it back. None: the packet holds the update.
    """

    pull: Callable[[Tensors, Tensors], Tensors]
    keep: Callable[[Tensors, Tensors, float], Tensors]
    foreseen: Callable[[Tensors, float], Tensors] | None = None


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm as a record of functions.

    Attributes:
        name: Its row in `ALGORITHMS`.
        summary: One line with the paper.
        plan: Local training the experiment asks for → local training this algorithm needs.
        init: First weights and spec → `ServerState` before round 0.
        apply: State and mean update → state of the next round.
        per_step: Whether ``apply`` needs `Mean.per_step`.
        variate: What clients keep; None keeps nothing.
        sends: Slot of the state that travels down beside the model; empty is none.
        optimizers: Local optimizers its derivation holds for.
        step_share: What keeps the codec's error, or takes it for signal, has `ecsq` round by rate and distortion, at
            this share of its step; 0 leaves the codec as it is.
    """

    name: str
    summary: str
    plan: Callable[[FitPlan], FitPlan]
    init: Callable[[Tensors, Spec], ServerState]
    apply: Callable[[ServerState, Mean], ServerState]
    per_step: bool = False
    variate: ControlVariate | None = None
    sends: str = ""
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    step_share: float = 0.0


@dataclass(frozen=True)
class AlgorithmRow:
    """One row of `ALGORITHMS`.

    Attributes:
        make: Its parameters → the algorithm.
        parameters: The record of them: keys of [server], with their help and their limits.
    """

    make: Callable[[Any], Algorithm]
    parameters: type[ServerPlan] = ServerPlan

    def build(self, **given: float) -> Algorithm:
        """Returns the algorithm with the parameters that are given, and its defaults for the others."""
        return self.make(self.parameters(**given))


def unchanged(plan: FitPlan) -> FitPlan:
    """Returns the plan as it is."""
    return plan


def init_with(**slots: float) -> Callable[[Tensors, Spec], ServerState]:
    """Returns an ``init`` that fills each named slot with a constant, for trainable tensors only."""

    def init(weights: Tensors, spec: Spec) -> ServerState:
        trainable = {p: v for p, v in weights.items() if spec[p].trainable}
        filled = {name: {p: np.full_like(v, value) for p, v in trainable.items()} for name, value in slots.items()}
        return ServerState(0, weights, spec, filled)

    return init


def step(state: ServerState, delta: Tensors, moves: Tensors, slots: Mapping[str, Tensors]) -> ServerState:
    """Returns the next state: trainable tensors go by ``moves``, statistics by the plain mean ``delta``.

    Statistics must never see an optimizer: an adaptive step over batch-norm variance can make it negative.
    """
    weights = {p: (w + moves.get(p, delta[p])).astype(np.float32) for p, w in state.weights.items()}
    return replace(state, round_num=state.round_num + 1, weights=weights, slots=slots)
