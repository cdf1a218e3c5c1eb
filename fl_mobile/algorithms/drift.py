"""Against client drift: SCAFFOLD, FedNova and FedDyn. Devices that train long, unequally or on skewed data still meet.

| row        | more goes down | the device keeps       | the server's step                                 |
|------------|----------------|------------------------|---------------------------------------------------|
| `scaffold` | c              | its control variate cᵢ | ``w + η·mean Δ``; c is the mean of all cᵢ         |
| `fednova`  | nothing        | nothing                | ``w + η·mean τ·mean(Δ/τ)``                        |
| `feddyn`   | nothing        | its linear term λᵢ     | ``w + η·(mean Δ + λ/α)``; λ is the mean of all λᵢ |

Nothing extra goes up, because the server can derive it. SCAFFOLD's new control variate (option II) is
``cᵢ⁺ = cᵢ − c − Δᵢ/(Kᵢηₗ)``, hence ``mean(cᵢ⁺ − cᵢ) = −c − mean(Δᵢ/Kᵢ)/ηₗ``; FedDyn's is ``λᵢ⁺ = λᵢ + αΔᵢ``. This is
exact because devices keep what follows from the *decoded* Δᵢ and the *decoded* c, not from what they trained: both ends
then use the same numbers, whatever the codec lost. Kᵢ follows from the packet's number of examples and the plan. The
server's terms are means over all devices where it weighs devices alike, as in the papers (``weighting = "uniform"``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fl_mobile.algorithms.base import Algorithm, DeviceState, Mean, ServerPlan, init_with, step, unchanged
from fl_mobile.records import FitPlan, ServerState
from fl_mobile.tensors import Tensors


def scaffold(server: ServerPlan) -> Algorithm:
    """``yᵢ ← yᵢ − ηₗ·(g(yᵢ) − cᵢ + c)`` on devices (Karimireddy et al., ICML 2020, Algorithm 1, option II)."""
    rate = np.float32(server.learning_rate)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        share, local = np.float32(mean.share), np.float32(mean.learning_rate)
        c = {p: old - share * (mean.sent[p] + mean.per_step[p] / local) for p, old in state.slots["c"].items()}
        return step(state, mean.delta, {p: rate * mean.delta[p] for p in c}, {"c": c})

    def pull(sent: Tensors, kept: Tensors, zeros: Tensors) -> Tensors:
        own = kept or zeros
        return {path: value - own[path] for path, value in (sent or zeros).items()}

    def keep(pull: Tensors, delta: Tensors, steps: float, learning_rate: float) -> Tensors:
        scale = np.float32(steps * learning_rate)
        return {p: -(value + delta[p] / scale) for p, value in pull.items()}

    return Algorithm(
        *("scaffold", "SCAFFOLD: control variates (Karimireddy et al. 2020)", unchanged, init_with(c=0.0), apply),
        per_step=True,
        device=DeviceState(pull, keep),
        sends="c",
        optimizers=("sgd",),
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
    return Algorithm("fednova", summary, unchanged, init_with(), apply, per_step=True, optimizers=("sgd", "momentum"))


def feddyn(server: ServerPlan) -> Algorithm:
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

    def pull(sent: Tensors, kept: Tensors, zeros: Tensors) -> Tensors:
        return kept or zeros

    def keep(pull: Tensors, delta: Tensors, steps: float, learning_rate: float) -> Tensors:
        return {p: value + alpha * delta[p] for p, value in pull.items()}

    return Algorithm(
        *("feddyn", "FedDyn: dynamic regularisation (Acar et al. 2021)", plan, init_with(term=0.0), apply),
        device=DeviceState(pull, keep),
    )
