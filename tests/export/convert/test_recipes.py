"""Laws that hold for every recipe on every topology."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.convert.recipes import CORE_RECIPES, RECIPES, find_recipe
from export.convert.to_tflite import to_tflite
from export.model.ends import OUTPUT
from export.model.serving import SIGNATURE, describe, predict
from export.runtimes import RUNTIMES, answers, missing_runtimes, real_values
from export.tflite.graph import read_graph
from export.verify.measured import make_reference, measure_parity
from fl_mobile.errors import ConfigError, ExportError
from tests.export.convert.topologies import Digits, branching

pytestmark = pytest.mark.tf


@pytest.mark.sample(r"(?!tf-lite).*")
@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "litert"])
def test_runtimes_agree(runtime: str, model: Any, data: Digits) -> None:
    reason = missing_runtimes().get(runtime)
    if reason:
        pytest.skip(reason)
    for recipe in RECIPES.values():
        artifact = to_tflite(model, recipe, representative=data.x_train[:100])
        end = read_graph(artifact).signature(SIGNATURE).outputs[0]
        ours, theirs = (real_values(end, answers(r, artifact, data.x_test[:40])) for r in ("litert", runtime))
        assert np.abs(ours - theirs).max() <= recipe.tolerance.replay_abs, recipe.name


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_size_follows_the_weights(recipe: Any, model: Any, data: Digits) -> None:
    artifact = to_tflite(model, recipe, representative=data.x_train[:100])
    weights = describe(model).parameters * recipe.weight_bits // 8
    assert weights < len(artifact) < weights + 9_000, "weights plus a graph of a few kB"


@pytest.mark.sample(r"float32|int8|int16x8")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_same_model_same_bytes(recipe: Any, model_of: Any, data: Digits) -> None:
    import keras

    model = model_of("functional-batchnorm")
    first = to_tflite(model, recipe, representative=data.x_train[:50])
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])  # moves Keras' automatic names on
    assert to_tflite(model, recipe, representative=data.x_train[:50]) == first


@pytest.mark.slow
def test_same_bytes_from_a_fresh_process(tmp_path: Path, model: Any, data: Digits) -> None:
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "frames.npy", data.x_train[:50])
    script = (
        "import sys, keras, numpy as np\n"
        "from export.convert.to_tflite import to_tflite\n"
        "from export.convert.recipes import RECIPES\n"
        "keras.layers.Dense(3), keras.layers.Conv2D(1, 1)\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "frames = np.load(sys.argv[1] + '/frames.npy')\n"
        "for name in ('float32', 'int8'):\n"
        "    open(f'{sys.argv[1]}/{name}.tflite', 'wb').write(to_tflite(model, RECIPES[name], representative=frames))\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=True, capture_output=True)
    for name in ("float32", "int8"):
        here = to_tflite(model, RECIPES[name], representative=data.x_train[:50])
        assert (tmp_path / f"{name}.tflite").read_bytes() == here


def test_integer_artifact_reads_pixels_as_they_are(model: Any, data: Digits) -> None:
    """Calibrated on frames half as bright, the converter alone would scale every pixel by 0.5 in silence."""
    artifact = to_tflite(model, RECIPES["int8"], representative=data.x_train[:100] // 2)
    graph = read_graph(artifact)
    entry, end = graph.signature(SIGNATURE).inputs[0], graph.signature(SIGNATURE).outputs[0]
    assert entry.scale == 1.0
    dark = data.x_test[:100] // 2  # inside the calibrated range, so nothing saturates
    keras_rows = make_reference(model, dark, data.y_test[:100]).answers[OUTPUT]
    assert np.abs(real_values(end, answers("litert", artifact, dark)) - keras_rows).mean() < 0.02


def test_core_recipes_are_rows() -> None:
    assert set(CORE_RECIPES) <= RECIPES.keys()
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'int8'"):
        find_recipe("int-8")


def test_operation_without_builtin_is_refused_by_name() -> None:
    import keras
    import tensorflow as tf

    class Spectrum(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.linalg.svd(x[..., 0], compute_uv=False)

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Rescaling(1 / 255), Spectrum(name="spectrum"), layers.Dense(3)]
    )
    with pytest.raises(ExportError, match=r"Svd \(layer 'spectrum'\)"):
        to_tflite(model, RECIPES["float32"])


def test_branch_on_pixels_is_float_only(data: Digits) -> None:
    model = branching()
    frames = data.x_test[:60]
    # The branch looks at the whole batch, and the phone's batch is one frame.
    one_by_one = np.concatenate([predict(model, describe(model), {"image": frame[None]})[OUTPUT] for frame in frames])
    reference = replace(make_reference(model, frames, data.y_test[:60]), answers={OUTPUT: one_by_one})
    for name in ("float32", "float16", "dynamic-int8"):
        artifact = to_tflite(model, RECIPES[name])
        assert "IF" in read_graph(artifact).ops
        assert measure_parity(reference, RECIPES[name], artifact).max_abs_diff <= RECIPES[name].tolerance.max_abs
    for name in ("int8", "int8-legacy", "int16x8"):
        with pytest.raises(ExportError, match=f"'{name}' cannot calibrate model 'branching': it holds If"):
            to_tflite(model, RECIPES[name], representative=data.x_train[:20])


def test_converter_is_quiet(capfd: pytest.CaptureFixture[str], model: Any, data: Digits) -> None:
    capfd.readouterr()
    to_tflite(model, RECIPES["int8"], representative=data.x_train[:20])
    assert capfd.readouterr() == ("", "")
