"""Adaptive server optimizers of Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.

``m ← β₁·m + (1−β₁)·Δ``, a rule for ``v`` each, ``w ← w + η·m/(√v + τ)``; ``v`` starts at τ², no bias correction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fl_mobile.algorithms.base import Algorithm, Mean, ServerPlan, init_with, step, unchanged
from fl_mobile.records import ServerState

Second = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fedadam(server: ServerPlan) -> Algorithm:
    """``v ← β₂·v + (1−β₂)·Δ²``."""
    b2 = np.float32(server.beta2)
    return _adaptive("fedadam", "FedAdam", server, lambda v, d: b2 * v + (1 - b2) * d * d)


def fedyogi(server: ServerPlan) -> Algorithm:
    """``v ← v − (1−β₂)·Δ²·sign(v − Δ²)``."""
    b2 = np.float32(server.beta2)
    return _adaptive("fedyogi", "FedYogi", server, lambda v, d: v - (1 - b2) * d * d * np.sign(v - d * d))


def fedadagrad(server: ServerPlan) -> Algorithm:
    """``v ← v + Δ²``."""
    return _adaptive("fedadagrad", "FedAdagrad", server, lambda v, d: v + d * d)


def _adaptive(name: str, title: str, server: ServerPlan, second: Second) -> Algorithm:
    rate, b1, tau = np.float32(server.learning_rate), np.float32(server.beta1), np.float32(server.tau)

    def apply(state: ServerState, mean: Mean) -> ServerState:
        delta = mean.delta
        m = {p: b1 * old + (1 - b1) * delta[p] for p, old in state.slots["m"].items()}
        v = {p: second(old, delta[p]) for p, old in state.slots["v"].items()}
        return step(state, delta, {p: rate * m[p] / (np.sqrt(v[p]) + tau) for p in m}, {"m": m, "v": v})

    init = init_with(m=0.0, v=server.tau**2)
    return Algorithm(name, f"{title} (Reddi et al. 2021)", unchanged, init, apply)
