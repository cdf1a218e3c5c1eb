"""The sum of whole numbers that were added before anybody could read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_mobile.codecs.summed import Summed
from fl_mobile.tensors import Spec, Tensors


@dataclass
class SummedFields:
    """The sum of some clients' whole numbers; an `Aggregator` to which no single update can be added.

    Attributes:
        spec: Shapes of the updates.
        codec: That they were encoded with.
        total: ``int64[m]``.
        weight: Clients in it.
    """

    spec: Spec
    codec: Summed
    total: np.ndarray
    weight: int = 0

    def add(self, delta: Tensors, weight: int) -> None:
        """Raises ``ValueError``: there are no single updates."""
        raise ValueError("a masked sum is added before it can be read, never update by update")

    def merge(self, other: SummedFields) -> None:
        """Adds the sum of other clients."""
        self.total = self.total + other.total
        self.weight += other.weight

    def result(self) -> Tensors | None:
        """Returns the mean, ``float32``, or None of nobody."""
        return self.codec.decode_total(self.total, self.spec, self.weight) if self.weight else None
