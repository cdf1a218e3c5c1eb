"""Models trained once per test process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.export.convert.topologies import LABELS, Digits, digits, trained
from tests.export.of_tasks import alphabet_bundle, sensor_bundle


@pytest.fixture(scope="session")
def data() -> Digits:
    return digits()


@pytest.fixture(scope="session")
def model_of(data: Digits) -> Any:
    """Returns the trained topology of a name; each is trained at most once, and its layers are numbered from none."""

    def make(name: str) -> Any:
        import keras

        keras.backend.clear_session()
        return trained(name, data)

    return lru_cache(maxsize=None)(make)


@pytest.fixture(scope="session")
def model(model_of: Any) -> Any:
    return model_of("sequential-logits")


@pytest.fixture(scope="session")
def whole_bundle(model: Any, data: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle. Tests that damage it work on a copy."""
    from export import export_model

    out = tmp_path_factory.mktemp("export") / "bundle"
    export_model(
        model,
        out,
        recipes=["float32", "int8"],
        labels=LABELS,
        representative=data.x_train[:100],
        x_test=data.x_test,
        y_test=data.y_test,
        provenance={"experiment": "0123abcd"},
    )
    return out


@pytest.fixture(scope="session")
def keyboard_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the alphabet, which tells the next character. Tests that damage it work on a copy."""
    return alphabet_bundle(tmp_path_factory.mktemp("export") / "keyboard")


@pytest.fixture(scope="session")
def shaking_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of windows of two sensors, with a recording. Tests that damage it work on a copy."""
    return sensor_bundle(tmp_path_factory.mktemp("export") / "sensor")
