"""What export recipes promise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.check.law import SEED, ask


def _model() -> Any:
    import keras

    keras.utils.set_random_seed(SEED)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, 2, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 1)), *layers, keras.layers.Dense(4, "softmax")])


def _frames() -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (60, 12, 12, 1)).astype(np.uint8)


def recipe_converts(row: Any, name: str) -> None:
    from export import bundle

    with tempfile.TemporaryDirectory(prefix="fl-mobile-") as made:
        bundle(_model(), _frames(), out=Path(made) / "bundle", recipes=[name])


def recipe_repeats(row: Any, name: str) -> None:
    from export.convert.to_tflite import to_tflite

    model = _model()
    one, other = (to_tflite(model, row, representative=_frames()) for _ in range(2))
    ask(one == other, "converted twice, it is another file")
