"""Against client drift: SCAFFOLD, FedNova and FedDyn. Devices that train long, unequally or on skewed data still meet.

| row        | more goes down | the device keeps       | the server's step                                 |
|------------|----------------|------------------------|---------------------------------------------------|
| `scaffold` | c              | its control variate cᵢ | ``w + η·mean Δ``; c is the mean of all cᵢ         |
| `fednova`  | nothing        | nothing                | ``w + η·mean τ·mean(Δ/τ)``                        |
| `feddyn`   | nothing        | its linear term λᵢ     | ``w + η·(mean Δ + λ/α)``; λ is the mean of all λᵢ |

Nothing extra goes up, because the server can derive it: SCAFFOLD's new control variate (option II) is
``cᵢ⁺ = cᵢ − c − Δᵢ/(Kᵢηₗ)``, FedDyn's ``λᵢ⁺ = λᵢ + αΔᵢ``. Both ends use the *decoded* packet and the *decoded* c, so
that they agree whatever the codec lost. Kᵢ follows from the packet's number of examples and the plan.

**Lossy uploads.** What is kept is used again, so the error of one packet comes back in the next, and grows if it is
longer than what was sent. Two things make it die away. The codec contracts, ``E‖x − C(x)‖² ≤ ω‖x‖²`` with ω < 1:
`server.publish` has `ecsq` round so, and what cannot is refused before round 1. And SCAFFOLD's packet holds the
difference to what both ends know, ``dᵢ = Δᵢ + Kᵢηₗc``, hence ``cᵢ⁺ = cᵢ − C(dᵢ)/(Kᵢηₗ)``. ``−dᵢ/(Kᵢηₗ)`` is the mean
gradient of the client less cᵢ: it vanishes as cᵢ settles, and with it the error, which is relative to it. That is
SCAFCOM without momentum (Huang et al., "Stochastic controlled averaging for federated learning with communication
compression", ICLR 2024, arXiv 2308.08165), or EF21 around a shared c (Richtárik et al., NeurIPS 2021). Noise with ω > 1
needs the damping of their SCALLION, ``cᵢ⁺ = cᵢ − C(dᵢ)/((1 + ω)Kᵢηₗ)``: stable, but 1 + ω times slower. FedDyn's
updates vanish by themselves where its local problems agree, and need no difference.

**Weights.** c and λ are ``Σ pᵢcᵢ`` over all clients, with the weights pᵢ of the aggregate: `Mean.share` is the weight
of a round over that of the federation. ``Σ pᵢ(c − cᵢ) = 0`` then, under uniform weighting and by examples alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fl_mobile.algorithms.base import Algorithm, ControlVariate, Mean, ServerPlan, init_with, step, unchanged
from fl_mobile.parameters import parameter
from fl_mobile.records import FitPlan, ServerState
from fl_mobile.tensors import Tensors


@dataclass(frozen=True)
class Dynamic(ServerPlan):
    """[server] of FedDyn."""

    alpha: float = parameter(0.1, "α: how strongly devices are held to the global model", above=0)


def scaffold(server: ServerPlan) -> Algorithm:
    """``yᵢ ← yᵢ − ηₗ·(g(yᵢ) − cᵢ + c)`` on clients (Karimireddy et al., ICML 2020, Algorithm 1, option II)."""
    rate = np.float32(server.learning_rate)

    def foreseen(sent: Tensors, learning_rate: float) -> Tensors:
        return {path: np.float32(-learning_rate) * value for path, value in sent.items()}

    def apply(state: ServerState, mean: Mean) -> ServerState:
        known, steps = foreseen(mean.sent, mean.learning_rate), np.float32(mean.steps)
        share, local = np.float32(mean.share), np.float32(mean.learning_rate)
        c = {p: old - share * (mean.per_step[p] / local) for p, old in state.slots["c"].items()}
        return step(state, mean.delta, {p: rate * (mean.delta[p] + steps * known[p]) for p in c}, {"c": c})

    def pull(sent: Tensors, kept: Tensors) -> Tensors:
        return {path: value - kept[path] for path, value in sent.items()}

    def keep(kept: Tensors, told: Tensors, scale: float) -> Tensors:
        return {path: value - told[path] / np.float32(scale) for path, value in kept.items()}

    return Algorithm(
        name="scaffold",
        summary="SCAFFOLD: control variates (Karimireddy et al. 2020)",
        plan=unchanged,
        init=init_with(c=0.0),
        apply=apply,
        per_step=True,
        variate=ControlVariate(pull, keep, foreseen),
        sends="c",
        optimizers=("sgd",),
        step_share=0.25,
    )


def fednova(server: ServerPlan) -> Algorithm:
    """Averages directions, not sums of steps: ``w + η·(Σ pᵢτᵢ)·Σ pᵢ·Δᵢ/τᵢ`` (Wang et al., NeurIPS 2020, equation 10).

    Of plain averaging, devices that make more steps pull the optimum to themselves.
    """
    rate = np.float32(server.learning_rate)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        moves = {p: rate * np.float32(mean.steps) * value for p, value in mean.per_step.items()}
        return step(state, mean.delta, moves, state.slots)

    summary = "FedNova: normalised averaging (Wang et al. 2020)"
    return Algorithm(
        name="fednova",
        summary=summary,
        plan=unchanged,
        init=init_with(),
        apply=apply,
        per_step=True,
        optimizers=("sgd", "momentum"),
    )


def feddyn(server: Dynamic) -> Algorithm:
    """Each device minimises ``Lᵢ(θ) + ⟨λᵢ, θ⟩ + α/2·‖θ − w‖²`` (Acar et al., ICLR 2021, Algorithm 1; λᵢ = −∇Lᵢ there).

    λ of the server is minus the paper's h, so that it is the mean of all λᵢ.
    """
    rate, alpha = np.float32(server.learning_rate), np.float32(server.alpha)

    def plan(fit: FitPlan) -> FitPlan:
        return replace(fit, proximal_mu=server.alpha)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        share = np.float32(mean.share)
        term = {p: old + alpha * share * mean.delta[p] for p, old in state.slots["term"].items()}
        return step(state, mean.delta, {p: rate * (mean.delta[p] + term[p] / alpha) for p in term}, {"term": term})

    def pull(sent: Tensors, kept: Tensors) -> Tensors:
        return kept

    def keep(kept: Tensors, told: Tensors, scale: float) -> Tensors:
        return {path: value + alpha * told[path] for path, value in kept.items()}

    return Algorithm(
        name="feddyn",
        summary="FedDyn: dynamic regularisation (Acar et al. 2021)",
        plan=plan,
        init=init_with(term=0.0),
        apply=apply,
        variate=ControlVariate(pull, keep),
        step_share=0.25,
    )
