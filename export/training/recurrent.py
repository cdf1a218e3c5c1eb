"""Dropout inside LSTM, GRU and SimpleRNN cells, drawn like that of Dropout layers: keyed by seed, step and place.

A cell draws one mask a gate for its inputs and for its state, and uses them in every time step. Their numbers follow
those of the Dropout layers: model order, inputs before state, gates in Keras' order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fl_mobile.models.private_api import flatten_layers

Keep = Callable[[int, Sequence[Any], float], Any]
"""Number of the mask, its shape (the batch may be a tensor), rate → ``float32`` of 0 and 1."""


@dataclass(frozen=True)
class CellMasks:
    """The masks of one side of one cell.

    Attributes:
        cell: Keras' cell.
        method: What the cell asks for them.
        cache: Where the cell keeps them between its time steps; its layer empties it.
        rate: Share that is dropped.
        first: Number of the first mask.
        count: Of masks; one a gate, or one for all.
    """

    cell: Any
    method: str
    cache: str
    rate: float
    first: int
    count: int

    def method_with(self, keep: Keep) -> Callable[[Any], Any]:
        """Returns the method with masks by ``keep``."""

        def masks(inputs: Any) -> Any:
            if getattr(self.cell, self.cache, None) is None:
                made = [self._mask(inputs, keep, self.first + i) for i in range(self.count)]
                setattr(self.cell, self.cache, made if _by_gate(self.cell) else made[0])
            return getattr(self.cell, self.cache)

        return masks

    def _mask(self, inputs: Any, keep: Keep, number: int) -> Any:
        import tensorflow as tf

        shape = inputs.shape.as_list()
        rows = tf.shape(inputs)[0] if shape[0] is None else shape[0]
        return keep(number, [rows, *shape[1:]], self.rate) * (1.0 / (1.0 - self.rate))


def masks_of_cells(model: Any, first: int) -> list[CellMasks]:
    """Returns what recurrent cells of a model draw.

    Args:
        model: A Keras model.
        first: Number of their first mask.
    """
    found: list[CellMasks] = []
    for cell in flatten_layers(model):
        if not hasattr(cell, "get_recurrent_dropout_mask"):
            continue
        for side, rate in (("dropout", cell.dropout), ("recurrent_dropout", cell.recurrent_dropout)):
            if 0 < rate < 1:
                count = cell.dropout_mask_count if _by_gate(cell) else 1
                found.append(
                    CellMasks(
                        cell=cell, method=f"get_{side}_mask", cache=f"_{side}_mask", rate=rate, first=first, count=count
                    )
                )
                first += count
    return found


def _by_gate(cell: Any) -> bool:
    return getattr(cell, "dropout_mask_count", None) is not None
