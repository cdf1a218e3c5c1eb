"""Conversion in a process of its own: the same bytes, the same errors, and the memory stays out of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.convert import conversion
from export.convert.conversion import convert_apart, convert_here, converter_for
from export.convert.recipes import CORE_RECIPES, RECIPES, find_recipe
from export.convert.saved import saved_models
from export.convert.to_tflite import convert_ahead, make_artifact, to_tflite
from export.model.frames import frames_for
from export.model.serving import described
from fl_mobile.errors import ExportError
from tests.export.convert.topologies import Digits

pytestmark = pytest.mark.tf


@pytest.mark.slow
def test_apart_gives_the_same_bytes_and_the_same_words(model: Any, data: Digits) -> None:
    import keras
    import tensorflow as tf

    frame = keras.Input((4, 4))
    singular = keras.layers.Lambda(lambda x: tf.linalg.svd(x, compute_uv=False), name="no_builtin")(frame)
    foreign = keras.Model(frame, keras.layers.Dense(3)(singular))
    with convert_apart() as convert:
        for name in RECIPES:
            options: dict[str, Any] = {"representative": data.x_train[:20]}
            apart = to_tflite(model, find_recipe(name), convert=convert, **options)
            assert apart == to_tflite(model, find_recipe(name), **options), name
        told = []
        for where in (convert, convert_here):
            with pytest.raises(ExportError, match=r"operation Svd .* has no TFLite builtin") as refused:
                to_tflite(foreign, find_recipe("float32"), convert=where)
            told.append(str(refused.value))
        assert told[0] == told[1]
        assert to_tflite(model, find_recipe("float32"), convert=convert), "an error does not end the process"


def test_what_was_asked_for_ahead_is_the_same_and_in_no_order(model: Any, data: Digits) -> None:
    frames = frames_for(described(model, None).serving, data.x_train[:20], "frames")
    with convert_apart() as convert, saved_models(described(model, None), convert) as saved:
        convert_ahead(saved, [find_recipe(name) for name in ("float32", "int8", "dynamic-int8")], frames)
        for name in ("dynamic-int8", "int8", "int8"):  # once ahead, once more on its own
            here = to_tflite(model, find_recipe(name), representative=data.x_train[:20])
            assert make_artifact(saved, find_recipe(name), frames).data == here, name


def test_a_child_that_dies_is_an_error_and_none_outlives_the_block(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_CHILD", "import os; os._exit(3)")
    with convert_apart() as convert, pytest.raises(ExportError, match="process ended with code 3 at recipe 'float32'"):
        to_tflite(model, find_recipe("float32"), convert=convert)


def test_no_child_outlives_the_block() -> None:
    import psutil

    def children() -> list[Any]:
        return [c for c in psutil.Process().children() if "export.convert.conversion" in " ".join(c.cmdline())]

    def interrupted() -> None:
        with convert_apart() as convert:
            assert len(children()) == 1
            convert.calibrate_apart()
            convert.calibrate_apart()
            assert len(children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert children() == []


def test_small_models_start_no_process() -> None:
    with converter_for(225_034) as convert:
        assert convert is convert_here
    with converter_for(2_270_794) as convert:
        assert convert is not convert_here


def resident_mb() -> float:
    """Returns what this process holds after everything free was given back."""
    import ctypes
    import gc

    import psutil

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 1e6)


@pytest.mark.slow
@pytest.mark.parametrize("filters", [32, 64])
def test_fifty_conversions_keep_no_more_than_a_fifth(filters: int) -> None:
    """The demo's CNN converts here, one 4 times as large in a process of its own."""
    import keras

    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * filters, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4 * filters),
            layers.Dense(10),
        ]
    )
    frames = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    with converter_for(net.count_params()) as convert:
        assert (convert is convert_here) == (filters == 32)
        held = []
        for turn in range(50):
            recipe = find_recipe(CORE_RECIPES[turn % len(CORE_RECIPES)])
            to_tflite(net, recipe, representative=frames, convert=convert)
            held.append(resident_mb() if turn in (len(CORE_RECIPES) - 1, 49) else 0.0)
    assert held[49] <= 1.2 * held[len(CORE_RECIPES) - 1]


@pytest.mark.slow
def test_fifty_exports_keep_no_more_than_a_fifth(tmp_path: Path) -> None:
    """Whole bundles of a small model: traces, conversions, sessions and proofs give back what they took."""
    import shutil

    import keras

    from export import export_model

    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(4)]
    )
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    held = []
    for turn in range(50):
        options = {"labels": None, "representative": frames, "x_test": frames, "y_test": None}
        export_model(net, tmp_path / "out", recipes=("float32", "int8"), **options)
        shutil.rmtree(tmp_path / "out")
        held.append(resident_mb() if turn in (3, 49) else 0.0)
    assert held[49] <= 1.2 * held[3]
