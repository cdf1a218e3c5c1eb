"""The bytes of an artifact follow from the model: parameters × bits, and a graph that does not grow with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.convert.recipes import RECIPES, Recipe
from export.convert.to_tflite import to_tflite
from export.model.serving import describe
from export.tuning.size import account_for

pytestmark = pytest.mark.tf

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), dtype=np.uint8)


def net(width: int) -> Any:
    """The demo's CNN at a quarter (8) or at its own width (32)."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(width, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu"),
            layers.Dense(10),
        ]
    )


@pytest.fixture(scope="module")
def narrow_and_wide() -> tuple[Any, Any]:
    return net(8), net(32)


@pytest.mark.sample(r"float32|int8|int16x8")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_size_is_parameters_times_bits_and_a_graph(recipe: Recipe, narrow_and_wide: tuple[Any, Any]) -> None:
    """Oracle: the graph is the same at both widths, so what the wider file has more is its parameters alone."""
    files = [to_tflite(model, recipe, representative=FRAMES) for model in narrow_and_wide]
    parameters = [describe(model).parameters for model in narrow_and_wide]
    more_bytes, more_parameters = len(files[1]) - len(files[0]), parameters[1] - parameters[0]
    assert more_bytes == pytest.approx(more_parameters * recipe.weight_bits / 8, rel=0.03)
    account = account_for(files[1], describe(narrow_and_wide[1]).kernel_weights, recipe)
    assert account.error <= 0.03
    assert account.file_bytes - account.kernel_bytes < 12_000, "operations, names, biases and scales"


def test_it_catches_weights_that_are_stored_wider_than_the_recipe_says(narrow_and_wide: tuple[Any, Any]) -> None:
    wide = narrow_and_wide[1]
    kernels = describe(wide).kernel_weights
    artifact = to_tflite(wide, RECIPES["float32"])
    assert account_for(artifact, kernels, RECIPES["int8"]).error > 1
