"""How kinds are written down, and the frames they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

from export.model.serving import Serving

WORDS = 20
CAMERA = (16, 16, 3)
ROWS = (8, 6)
Build = Callable[[], Any]


def stack(shape: tuple[int, ...], *layers: Any, dtype: str = "float32", name: str | None = None) -> Any:
    """Returns a Sequential model."""
    return keras.Sequential([L.Input(shape, dtype=dtype, name=name), *layers])


def graph(entries: Any, answer: Callable[..., Any]) -> Any:
    """Returns the functional model of ``answer`` over ``entries``: one shape, or shapes by name."""
    if isinstance(entries, dict):
        frames = {name: L.Input(shape, name=name) for name, shape in entries.items()}
        return keras.Model(list(frames.values()), answer(**frames))
    frame = L.Input(entries)
    return keras.Model(frame, answer(frame))


def frames_of(serving: Serving, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random frames by input name, ``[count, ...]`` in the artifact's dtypes."""
    rng = np.random.default_rng(seed)
    draws = {
        "uint8": lambda size: rng.integers(0, 256, size).astype(np.uint8),
        "int32": lambda size: rng.integers(0, WORDS, size).astype(np.int32),
        "float32": lambda size: rng.standard_normal(size).astype(np.float32),
    }
    return {entry.name: draws[entry.dtype]((count, *entry.shape[1:])) for entry in serving.inputs}


class Own(L.Layer):
    """A layer of the user's own around a function of tensors."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)
