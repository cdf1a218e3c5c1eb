"""Adaptive server optimizers of Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.

``m ← β₁·m + (1−β₁)·Δ``, a rule for ``v`` each, ``w ← w + η·m/(√v + τ)``; ``v`` starts at τ², no bias correction.

v takes the noise of a lossy codec for signal (unbiased in Δ, it is not in Δ²) and every step gets shorter by it. `ecsq`
rounds by rate and distortion here, at an eighth of its step, and at a sixteenth where v never forgets the noise of the
first, longest updates (FedAdagrad): ``docs/combinations.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fl_mobile.algorithms.base import Algorithm, Mean, ServerPlan, init_with, step, unchanged
from fl_mobile.parameters import parameter
from fl_mobile.records import ServerState


@dataclass(frozen=True)
class Adaptive(ServerPlan):
    """[server] of FedAdagrad."""

    beta1: float = parameter(0.9, "β₁, decay of the first moment", at_least=0, below=1)
    tau: float = parameter(1e-3, "adaptivity τ, added to the root of the second moment", above=0)


@dataclass(frozen=True)
class AdaptiveMean(Adaptive):
    """[server] of FedAdam and FedYogi, whose second moment decays."""

    beta2: float = parameter(0.99, "β₂, decay of the second moment", at_least=0, below=1)


Second = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fedadam(server: AdaptiveMean) -> Algorithm:
    """``v ← β₂·v + (1−β₂)·Δ²``."""
    b2 = np.float32(server.beta2)
    return _adaptive("fedadam", "FedAdam", server, lambda v, d: b2 * v + (1 - b2) * d * d)


def fedyogi(server: AdaptiveMean) -> Algorithm:
    """``v ← v − (1−β₂)·Δ²·sign(v − Δ²)``."""
    b2 = np.float32(server.beta2)
    return _adaptive("fedyogi", "FedYogi", server, lambda v, d: v - (1 - b2) * d * d * np.sign(v - d * d))


def fedadagrad(server: Adaptive) -> Algorithm:
    """``v ← v + Δ²``."""
    return _adaptive("fedadagrad", "FedAdagrad", server, lambda v, d: v + d * d, step_share=1 / 16)


def _adaptive(name: str, title: str, server: Adaptive, second: Second, step_share: float = 1 / 8) -> Algorithm:
    rate, b1, tau = np.float32(server.learning_rate), np.float32(server.beta1), np.float32(server.tau)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        delta = mean.delta
        m = {p: b1 * old + (1 - b1) * delta[p] for p, old in state.slots["m"].items()}
        v = {p: second(old, delta[p]) for p, old in state.slots["v"].items()}
        return step(state, delta, {p: rate * m[p] / (np.sqrt(v[p]) + tau) for p in m}, {"m": m, "v": v})

    init = init_with(m=0.0, v=server.tau**2)
    summary = f"{title} (Reddi et al. 2021)"
    return Algorithm(name=name, summary=summary, plan=unchanged, init=init, apply=apply, step_share=step_share)
