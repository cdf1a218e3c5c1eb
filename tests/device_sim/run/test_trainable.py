"""What a training program is made of: every kind of MODEL, every option used or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from device_sim.run.trainable import open_trainable
from export.training.program import build_training_program
from fl_mobile.errors import ConfigError, FlMobileError

pytestmark = pytest.mark.tf
L = keras.layers


def saved(path: Path, *layers: Any, shape: tuple[int, ...] = (4,)) -> str:
    keras.utils.set_random_seed(0)
    keras.Sequential([keras.Input(shape), *layers]).save(path)
    return str(path)


def test_a_file_says_by_its_head_what_it_is_trained_for(tmp_path: Path) -> None:
    classes = open_trainable(saved(tmp_path / "a.keras", L.Dense(3, "softmax")), None, [])
    assert (classes.plan.loss, classes.plan.from_logits) == ("sparse-categorical-crossentropy", False)
    two = open_trainable(saved(tmp_path / "b.keras", L.Dense(1, "sigmoid")), None, [])
    assert (two.plan.loss, two.plan.from_logits) == ("binary-crossentropy", False)
    tokens = open_trainable(saved(tmp_path / "c.keras", L.Embedding(9, 3), L.LSTM(2), L.Dense(2, "softmax")), None, [])
    assert (tokens.input_dtype, tokens.options(None)["batch_size"]) == ("int32", 16)


def test_a_file_that_does_not_say_is_asked_for_its_loss(tmp_path: Path) -> None:
    values = saved(tmp_path / "values.keras", L.Dense(3))
    with pytest.raises(ConfigError, match="Say it with --loss"):
        open_trainable(values, None, [])
    chosen = open_trainable(values, None, ["train.loss=mse", "train.optimizer=adam", "train.clip-gradient-norm=2"])
    assert (chosen.plan.loss, chosen.plan.optimizer, chosen.options(7)["clip_norm"]) == ("mse", "adam", 2.0)
    assert chosen.options(7)["batch_size"] == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.learning-rate=0.1"], "an input of every training step"),
        (["fleet.link=wifi"], "fleet.link shapes no training program"),
        (["train.rounds=3"], "train.rounds shapes no training program"),
        (["model.weights=none"], "is built already"),
        (["data.image-size=8x8"], "needs a dataset"),
        (["train.loss=hinge"], "hinge"),
        (["train.loss=binary-crossentropy"], "is for one output and two classes"),
    ],
)
def test_a_key_that_shapes_no_program_is_refused(changes: list[str], words: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "m.keras", L.Dense(3, "softmax"))
    with pytest.raises(FlMobileError, match=words):
        open_trainable(model, None, changes)


def test_answers_that_are_no_class_scores_are_refused_before_anything_slow(tmp_path: Path) -> None:
    segments = saved(tmp_path / "s.keras", L.Conv2D(2, 1, activation="softmax"), shape=(4, 4, 1))
    with pytest.raises(FlMobileError, match="takes one row of class scores"):
        open_trainable(segments, None, [])


@pytest.mark.parametrize(("name", "scale"), [("ds-cnn", 1.0), ("logistic", 1 / 255)])
def test_a_named_model_scales_what_is_raw_pixels(name: str, scale: float) -> None:
    layers = open_trainable(name, None, []).model.layers
    assert [layer.scale for layer in layers if isinstance(layer, L.Rescaling)] in ([pytest.approx(scale)], [])


def test_a_file_of_own_layers_is_read_with_their_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    (tmp_path / "layers_of_mine.py").write_text(
        "import keras\n@keras.saving.register_keras_serializable('mine')\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(tmp_path / "m.keras", importlib.import_module("layers_of_mine").Twice(), L.Dense(3, "softmax"))
    assert type(open_trainable(path, None, [], ["layers_of_mine"]).model.layers[0]).__name__ == "Twice"
    with pytest.raises(ConfigError, match="--import names layers of a model file"):
        open_trainable("logistic", None, [], ["layers_of_mine"])


def test_data_of_another_model_is_refused(tmp_path: Path) -> None:
    few = saved(tmp_path / "few.keras", L.Flatten(), L.Dense(3, "softmax"), shape=(8, 8, 1))
    with pytest.raises(FlMobileError, match="3 outputs for 10 classes"):
        open_trainable(few, "digits", [])
    other = open_trainable(saved(tmp_path / "other.keras", L.Dense(10, "softmax")), None, [])
    with pytest.raises(FlMobileError, match=r"takes examples of shape \(4,\), those given have \(8, 8, 1\)"):
        build_training_program(other.model, **other.options(2), examples=(np.ones((3, 8, 8, 1)), np.arange(3)))


def test_an_algorithm_with_control_variates_brings_the_correction() -> None:
    assert open_trainable("logistic", None, ["server.algorithm=scaffold"]).options(4)["correction"]
    assert open_trainable("logistic", None, ["server.algorithm=fedprox"]).options(4)["proximal"]
    with pytest.raises(ConfigError, match="--dataset is missing"):
        open_trainable("mine.models:build", None, [])
    with pytest.raises(ConfigError, match="logistic"):
        open_trainable("logistik", None, [])


def test_a_dataset_gives_the_shape_the_scale_and_examples() -> None:
    found = open_trainable("logistic", "digits", [])
    assert found.examples is not None
    assert found.examples[0].shape[1:] == tuple(found.model.input_shape[1:])
    assert found.input_dtype in ("uint8", "float32")
