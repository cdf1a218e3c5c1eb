"""Models from `.keras` files: whole or refused, and the user's own classes through the function that builds them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import open_dataset
from device_sim.federation.federation import build_of
from device_sim.run.keras_file import read_model, read_run_model, write_model
from fl_mobile.errors import ModelError
from fl_mobile.models import keras_bridge

pytestmark = pytest.mark.tf

OWN = """
import keras

def net(input_shape, num_classes, units=8):
    class Net(keras.Model):  # not registered with Keras, as most people's are not
        def __init__(self):
            super().__init__()
            self.flat, self.wide = keras.layers.Flatten(), keras.layers.Dense(units)
            self.out = keras.layers.Dense(num_classes)
        def call(self, x):
            return self.out(self.wide(self.flat(x)))
    model = Net()
    model(keras.ops.zeros((1, *input_shape)))
    return model

def other(input_shape, num_classes):
    return net(input_shape, num_classes, units=9)
"""


def test_a_table_model_comes_back_with_its_weights(tmp_path: Path) -> None:
    experiment = parse_experiment("", ["data.dataset=digits", "model.name=mlp"])
    model = build_of(experiment, open_dataset(experiment))()
    write_model(tmp_path / "m.keras", model)
    before, after = (list(keras_bridge.read(m).values()) for m in (model, read_model(tmp_path / "m.keras")))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_an_unregistered_class_is_read_through_the_function_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_models_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    experiment = parse_experiment("", ["data.dataset=digits", "model.name=own_models_of_a_test:net"])
    model = build_of(experiment, open_dataset(experiment))()
    moved = {path: value + np.float32(1) for path, value in keras_bridge.read(model).items()}
    keras_bridge.write(model, moved)
    path = tmp_path / "m.keras"
    write_model(path, model)
    with pytest.raises(ModelError, match="register_keras_serializable"):
        read_model(path)
    found = keras_bridge.read(read_run_model(path, experiment))
    assert all(np.array_equal(a, b) for a, b in zip(moved.values(), found.values(), strict=True))
    other = parse_experiment("", ["data.dataset=digits", "model.name=own_models_of_a_test:other"])
    with pytest.raises(ModelError, match="does not fit what own_models_of_a_test:other builds"):
        read_run_model(path, other)
    sys.modules.pop("own_models_of_a_test", None)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not really", b"HDF"], ids=["absent", "empty", "cut", "h5"])
def test_what_is_no_keras_file_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "m.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.keras"):
        read_model(path)


LAYERS = """
import keras

class Twice(keras.layers.Layer):  # not registered
    def call(self, x):
        return 2 * x
"""


def small(*layers: Any) -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,)), *layers, keras.layers.Dense(3)])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_of_ones_own_come_from_the_module_that_is_named(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_layers_of_a_test.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_layers_of_a_test as own  # type: ignore[import-not-found]

    model, path = small(own.Twice()), tmp_path / f"m{suffix}"
    model.save(path)
    x = np.ones((2, 4), np.float32)
    again = read_model(path, ["own_layers_of_a_test"])
    np.testing.assert_array_equal(again(x), model(x))
    with pytest.raises(ModelError, match=r"--import no_such_module: ModuleNotFoundError"):
        read_model(path, ["no_such_module"])
    sys.modules.pop("own_layers_of_a_test", None)


def test_each_refusal_says_its_own_remedy(tmp_path: Path) -> None:
    import keras

    model = small(keras.layers.Lambda(lambda x: x + 1))
    model.save(tmp_path / "code.keras")
    with pytest.raises(ModelError, match=r"code out of a file is never run: give the function"):
        read_model(tmp_path / "code.keras")
    small().save_weights(tmp_path / "alone.weights.h5")
    with pytest.raises(ModelError, match=r"It holds weights alone: name the model"):
        read_model(tmp_path / "alone.weights.h5")
    small().save(tmp_path / "m.h5")
    (tmp_path / "m.h5").rename(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"an HDF5 file\. Call it m\.h5"):
        read_model(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="a folder that is no run"):
        read_model(tmp_path)
