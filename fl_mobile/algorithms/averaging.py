"""The averaging family: FedAvg, FedSGD, FedProx (McMahan 2017, Li 2020) and FedAvgM (Hsu 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fl_mobile.algorithms.base import Algorithm, Mean, ServerPlan, init_with, step, unchanged
from fl_mobile.parameters import parameter
from fl_mobile.records import FitPlan, ServerState


@dataclass(frozen=True)
class Proximal(ServerPlan):
    """[server] of FedProx."""

    proximal_mu: float = parameter(0.01, "μ: how strongly devices are held to the global model", at_least=0)


@dataclass(frozen=True)
class Momentum(ServerPlan):
    """[server] of FedAvgM."""

    momentum: float = parameter(0.9, "β: part of the last step that is taken again", at_least=0, below=1)


def fedavg(server: ServerPlan) -> Algorithm:
    """``w ← w + η·Δ`` (McMahan et al., AISTATS 2017; η = 1 there)."""
    rate = np.float32(server.learning_rate)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        moves = {p: rate * d for p, d in mean.delta.items() if state.spec[p].trainable}
        return step(state, mean.delta, moves, state.slots)

    return Algorithm(
        name="fedavg", summary="FedAvg (McMahan et al. 2017)", plan=unchanged, init=init_with(), apply=apply
    )


def fedsgd(server: ServerPlan) -> Algorithm:
    """FedAvg over one full-batch SGD step per device: the mean gradient (McMahan et al., 2017)."""

    def plan(fit: FitPlan) -> FitPlan:
        return replace(fit, epochs=1, batch_size=0, optimizer="sgd", shuffle=False)

    return replace(
        fedavg(server), name="fedsgd", summary="FedSGD: one full-batch step (McMahan et al. 2017)", plan=plan
    )


def fedprox(server: Proximal) -> Algorithm:
    """FedAvg whose devices stay near the global model: + μ/2·‖w − w_global‖² (Li et al., MLSys 2020)."""

    def plan(fit: FitPlan) -> FitPlan:
        return replace(fit, proximal_mu=server.proximal_mu)

    return replace(fedavg(server), name="fedprox", summary="FedProx: proximal term (Li et al. 2020)", plan=plan)


def fedavgm(server: Momentum) -> Algorithm:
    """``m ← β·m + Δ; w ← w + η·m`` (Hsu et al., arXiv 1909.06335).

    m keeps a codec's error and replays it in later steps: `ecsq` rounds at a quarter of its step here.
    """
    rate, beta = np.float32(server.learning_rate), np.float32(server.momentum)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        m = {p: beta * old + mean.delta[p] for p, old in state.slots["m"].items()}
        return step(state, mean.delta, {p: rate * v for p, v in m.items()}, {"m": m})

    return Algorithm(
        name="fedavgm",
        summary="FedAvgM: server momentum (Hsu et al. 2019)",
        plan=unchanged,
        init=init_with(m=0.0),
        apply=apply,
        step_share=0.25,
    )
