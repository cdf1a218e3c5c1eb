"""Recurrent layers of Keras, and running them step by step instead of in a loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from export.model.swapping import swap
from fl_mobile.models.private_api import flatten_layers


def recurrent_layers(model: Any) -> list[Any]:
    """Returns the layers of ``model`` that are one of Keras' recurrent ones, wherever they are nested."""
    import keras

    return [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.RNN)]


def steps_of(layer: Any) -> int:
    """Returns the number of time steps a recurrent layer was built for; 0 when it does not say."""
    config = layer.get_build_config() or {}
    shape = config.get("input_shape") or config.get("shapes_dict", {}).get("sequences_shape") or (None, None)
    return shape[1] or 0


@contextlib.contextmanager
def loops_unrolled(model: Any, *, unroll: bool = True, most: int = 0) -> Iterator[None]:
    """Traces recurrent layers step by step instead of as a loop while the block runs; their lengths are fixed.

    An 8-bit recipe measures ranges inside a loop never (its calibration of a WHILE kills the process, TF 2.21), and
    between the operations of an unrolled layer as between any others.

    Args:
        model: A Keras model.
        unroll: False leaves all as they are.
        most: Steps of all layers together that are unrolled; where there are more, all stay loops, as do layers that do
            not say how many they have. 0 unrolls all.
    """
    looped = [layer for layer in recurrent_layers(model) if not layer.unroll] if unroll else []
    if most:
        looped = [layer for layer in looped if steps_of(layer)] if sum(map(steps_of, looped)) <= most else []
    undo = [put_back for layer in looped for put_back in unrolled(layer)]
    try:
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def unrolled(layer: Any) -> list[Callable[[], None]]:
    """Lets a recurrent layer run step by step; returns what undoes it, to be called from the last to the first.

    The backward layer of Bidirectional reads the reversed sequence forwards: going backwards step by step, Keras 3.15
    zeroes the outputs of masked steps in the order of the sequence, where they come in the other.
    """
    undo = [swap(layer, "unroll", True)]
    if getattr(layer, "go_backwards", False) and getattr(layer, "zero_output_for_mask", False):
        undo += [swap(layer, "call", _of_reversed(layer.call)), swap(layer, "go_backwards", False)]
    return undo


def _of_reversed(call: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    def of_reversed(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        mask = None if mask is None else keras.ops.flip(mask, axis=1)
        return call(keras.ops.flip(sequences, axis=1), initial_state=initial_state, mask=mask, training=training)

    return of_reversed
