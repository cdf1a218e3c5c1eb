"""First weights from files whose layers have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_mobile.errors import ModelError
from fl_mobile.models.weights import BY_NAME, BY_ORDER, load_weights

pytestmark = pytest.mark.tf


def notebook(*, seed: int = 0, first: int = 16) -> Any:
    """A model whose layers Keras named, by how many were made before."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    frame = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3)(frame)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(first)(x)
    x = layers.Dense(16)(x)
    model = keras.Model(frame, layers.Dense(16)(layers.Dense(16)(x)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def saved(model: Any, path: Path) -> Path:
    if path.suffix == "":
        model.export(str(path), verbose=False)
    else:
        model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m"])
def test_layers_that_are_numbered_otherwise_pair_in_order(name: str, tmp_path: Path) -> None:
    """Twelve layers are made in between: ``dense_9`` and ``dense_10`` change places when sorted as text."""
    source = notebook(seed=1)
    path = saved(source, tmp_path / name)
    for _ in range(2):
        target = notebook(seed=2)
    assert [layer.name for layer in source.layers] != [layer.name for layer in target.layers]
    assert load_weights(target, str(path)) == BY_ORDER
    for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_that_are_the_same_decide(tmp_path: Path) -> None:
    source = notebook(seed=1)
    assert load_weights(source, str(saved(source, tmp_path / "m.keras"))) == BY_NAME


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m"])
def test_another_shape_is_refused_and_nothing_is_set(name: str, tmp_path: Path) -> None:
    path, target = saved(notebook(first=17), tmp_path / name), notebook(seed=2)
    before = target.get_weights()
    with pytest.raises(ModelError, match="m"):
        load_weights(target, str(path))
    assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))


def test_a_folder_that_is_no_saved_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without saved_model\.pb"):
        load_weights(notebook(), str(tmp_path))


def test_weights_of_keras_2_come_in_order(tmp_path: Path) -> None:
    import tf_keras
    from tf_keras import layers

    tf_keras.backend.reset_uids()  # conv2d, dense, …
    notebook()  # whose names the next one cannot have: conv2d_1, dense_4, …
    old = tf_keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()]
        + [layers.Dense(16) for _ in range(4)]
    )
    for path in (tmp_path / "old.h5", tmp_path / "old"):
        old.save(path, save_format="tf" if path.suffix == "" else "h5")
        target = notebook(seed=2)
        assert load_weights(target, str(path)) == BY_ORDER
        for a, b in zip(old.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
