"""The sum of clipped updates on a grid: whatever bytes one client sends, it moves the sum by at most one length.

Every update counts once, whatever its client claims. It is scaled to ``clip_norm`` in float64 and cut off, never
rounded up, to whole steps of ``clip_norm / UNIT``: the integers that are added are at most `UNIT` long, so that
the sensitivity is a statement about whole numbers. Scaled in float32, or rounded to nearest, they would be longer.
"""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors, global_norm

UNIT = 1 << 30
"""Steps of the grid in the length of the clipping norm; 2³² clients fit into the sum."""

_MARGIN = 1 - 2.0**-40
"""Scaled updates end this much short, past the rounding of a norm that is summed in float64."""


class ClippedSum:
    """An aggregate that only `release` can read; `fl_mobile.aggregation.base.Aggregator` otherwise.

    Attributes:
        spec: Shapes of the updates.
        clip_norm: L2 norm of the round.
        total: The sum, ``int64`` steps of the grid by path.
        within: Updates that were no longer than ``clip_norm``, less those that were.
        weight: Updates.
    """

    def __init__(self, spec: Spec, clip_norm: float) -> None:
        self.spec, self.clip_norm = spec, clip_norm
        self.total = {path: np.zeros(tensor.shape, np.int64) for path, tensor in spec.items()}
        self.within = 0
        self.weight = 0

    def add(self, delta: Tensors, weight: int) -> None:
        """Adds an update, or with a weight of −1 takes it out again to the last bit.

        Raises:
            WireError: It is not finite.
            ValueError: It is to weigh more than another; a fault of ours.
        """
        from fl_mobile.kernels.gaussian import add_toward_zero

        if weight not in (1, -1):
            raise ValueError(f"under differential privacy every update counts once, not {weight} times")
        norm = global_norm({path: delta[path] for path in self.spec})
        if not math.isfinite(norm):
            raise WireError("value", "the update holds NaN or Inf")
        steps = UNIT / self.clip_norm if norm <= self.clip_norm else UNIT * _MARGIN / norm
        for path, values in self.total.items():
            add_toward_zero(values.reshape(-1), delta[path].reshape(-1), weight * steps)
        self.within += weight if norm <= self.clip_norm else -weight
        self.weight += weight

    def merge(self, other: ClippedSum) -> None:
        """Adds what another has summed; the order does not matter."""
        for path, values in other.total.items():
            self.total[path] += values
        self.within += other.within
        self.weight += other.weight

    def result(self) -> Tensors | None:
        """Raises ``ValueError``: without its noise the sum is for nobody."""
        raise ValueError("a private sum leaves through fl_mobile.privacy.release only, which adds the noise")
