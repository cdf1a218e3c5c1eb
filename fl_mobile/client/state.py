"""What a client keeps between rounds, and where local training starts because of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_mobile.agreement import Agreement
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Decoded


@dataclass(frozen=True)
class ClientState:
    """What one client keeps between rounds beside the model version it holds; None where there is nothing.

    Attributes:
        residual: What its accepted packets left out, under error feedback.
        variate: Its control variate (SCAFFOLD) or linear term (FedDyn).
        private: Tensors that never leave it.
    """

    residual: Tensors | None = None
    variate: Tensors | None = None
    private: Tensors | None = None


def keeps_anything(agreement: Agreement, *, private: bool) -> bool:
    """Whether clients of this federation keep anything; if not, nobody need look for it.

    Args:
        private: Whether some tensors do not travel.
    """
    return private or agreement.memory == "error-feedback" or agreement.algorithm.variate is not None


def pull_of(agreement: Agreement, decoded: Decoded, state: ClientState) -> Tensors | None:
    """Returns what a client adds to every step's gradient, None if its algorithm keeps nothing on clients."""
    if agreement.algorithm.variate is None:
        return None
    return agreement.algorithm.variate.pull(decoded.beside, variate_of(agreement, state))


def variate_of(agreement: Agreement, state: ClientState) -> Tensors:
    """Returns a client's control variate or linear term; zeros of a client that never took part."""
    zeros = {path: np.zeros(t.shape, np.float32) for path, t in agreement.spec.items() if t.trainable}
    return state.variate or zeros
