"""Bundles for the browser, and the browser: absent, it skips with the reason, or fails when CI promised it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.runtimes.browser import Tab, missing_browser, open_tab, serving
from tests.export.convert.topologies import LABELS, Digits

# The smart camera's own recipes; those that train again make files of the same kinds.
RECIPES_HERE = ("float32", "float16", "dynamic-int8", "int8", "int8-legacy", "int16x8")
COLOURS = ("red", "green", "blue")
# A camera that shows a test picture, so that no test asks for a real one.
FAKE_CAMERA = "--use-fake-device-for-media-stream"


@pytest.fixture(scope="session")
def browser() -> None:
    """Asks for Chromium and LiteRT.js."""
    reason = missing_browser()
    if reason is not None:
        if os.environ.get("CI_FULL") == "1":
            pytest.fail(f"CI_FULL=1 promises a browser, but: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def digits_bundle(model: Any, data: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey 8×8 digits, a trained model, every recipe."""
    from export import export_model

    out = tmp_path_factory.mktemp("camera") / "digits"
    export_model(
        model,
        out,
        recipes=RECIPES_HERE,
        labels=LABELS,
        representative=data.x_train[:100],
        x_test=data.x_test,
        y_test=data.y_test,
        provenance={"experiment": "camera"},
    )
    return out


def tinted(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``uint8[count, 12, 20, 3]`` noise with one strong channel, and which one it is."""
    rng = np.random.default_rng(5)
    classes = np.arange(count) % 3
    frames = rng.integers(0, 120, (count, 12, 20, 3))
    frames[np.arange(count), :, :, classes] += 100
    return frames.astype(np.uint8), classes


@pytest.fixture(scope="session")
def colours_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGB frames wider than high; the class is the strongest channel, by weights set by hand."""
    import keras

    from export import export_model

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((12, 20, 3)), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), layers.Dense(3)],
        name="colours",
    )
    model.layers[-1].set_weights([np.eye(3, dtype=np.float32) * 8, np.zeros(3, np.float32)])
    x, y = tinted(60)
    out = tmp_path_factory.mktemp("camera") / "colours"
    export_model(
        model,
        out,
        recipes=["float32", "int8"],
        labels=COLOURS,
        representative=x[:30],
        x_test=x[30:],
        y_test=y[30:],
        provenance={"experiment": "camera"},
    )
    return out


@pytest.fixture(scope="module")
def digits_page(browser: None, digits_bundle: Path) -> Iterator[str]:
    """The address of the camera page over ``digits_bundle``."""
    from export.pages import page_resources

    with serving(page_resources(digits_bundle)[1]) as url:
        yield url


@pytest.fixture
def tab(browser: None) -> Iterator[Tab]:
    with open_tab([FAKE_CAMERA]) as opened:
        yield opened
