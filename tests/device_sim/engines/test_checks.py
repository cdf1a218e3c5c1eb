"""What is refused before round 1, in one line that says what to change; what fails later, by device and layer."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task
from device_sim.engines.checks import check_training
from device_sim.engines.trainers.blame import blamed
from device_sim.engines.trainers.keras import KerasTrainer
from fl_mobile.errors import DataError, FlMobileError, ModelError, TrainingError
from fl_mobile.records import FitPlan

pytestmark = pytest.mark.tf

FEATURES = np.random.default_rng(0).random((6, 5)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 50, (6, 7)).astype(np.float32)


def _net(*layers: Any, shape: tuple[int, ...] = (5,)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


def _dense(units: int, **options: Any) -> Any:
    import keras

    return keras.layers.Dense(units, **options)


def _words(rows: int) -> Any:
    import keras

    layers = keras.layers
    return _net(layers.Embedding(rows, 4, name="words"), layers.GlobalAveragePooling1D(), _dense(2), shape=(7,))


def _nested_words(rows: int) -> Any:
    import keras

    layers = keras.layers
    inner = keras.Sequential([keras.Input((7,)), layers.Embedding(rows, 4), layers.GlobalAveragePooling1D()])
    return _net(inner, _dense(2), shape=(7,))


def _with_tf_random() -> Any:
    import keras
    import tensorflow as tf

    class Noise(keras.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            return x + tf.random.truncated_normal(tf.shape(x), seed=3) if training else x

    return _net(Noise(name="noise"), _dense(2))


REFUSED: dict[str, tuple[Callable[[], Any], str, np.ndarray, int, type[FlMobileError], str]] = {
    "one output, default loss": (
        lambda: _net(_dense(1)),
        *("sparse-categorical-crossentropy", FEATURES, 2, ModelError),
        'has one output, .* set train.loss = "binary-crossentropy"',
    ),
    "five outputs, binary": (
        lambda: _net(_dense(5)),
        *("binary-crossentropy", FEATURES, 5, ModelError),
        'has 5 outputs, .* set train.loss = "sparse-categorical-crossentropy"',
    ),
    "one output, three classes": (lambda: _net(_dense(1)), "mse", FEATURES, 3, ModelError, "one output.* 3 classes"),
    "too few outputs": (lambda: _net(_dense(3)), "mse", FEATURES, 4, ModelError, "3 outputs for 4 classes"),
    "half precision": (
        lambda: _net(_dense(4, dtype="mixed_float16", name="half"), _dense(2)),
        *("mse", FEATURES, 2, ModelError),
        r"layer 'half' \(Dense\) computes in float16 .*set_dtype_policy\('float32'\)",
    ),
    "token beyond": (lambda: _words(40), "mse", TOKENS, 2, DataError, "token 4. is outside .*'words', 0 to 39.*49"),
    "token beyond, nested": (
        lambda: _nested_words(40),
        "mse",
        TOKENS,
        2,
        DataError,
        "from 0 to 48 in layer .*Embedding",
    ),
    "token below": (lambda: _words(60), "mse", TOKENS - 1, 2, DataError, "token -1 is outside"),
    "fractions": (lambda: _words(60), "mse", TOKENS + 0.5, 2, DataError, "whole token numbers"),
    "tf.random": (_with_tf_random, "mse", FEATURES, 2, ModelError, "'noise' .*SeedGenerator"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_train_is_refused_in_one_line(name: str) -> None:
    build, loss, x, classes, kind, pattern = REFUSED[name]
    with pytest.raises(kind, match=pattern) as caught:
        check_training(build(), loss, {"train part": (x, np.zeros(len(x), np.int64))}, classes)
    assert "\n" not in str(caught.value)


def test_what_can_train_is_not_refused() -> None:
    check_training(_words(50), "mse", {"train part": (TOKENS, np.zeros(6, np.int64))}, 2)


def test_a_failure_in_a_step_names_device_layer_and_operation_and_crosses_processes() -> None:
    trainer = KerasTrainer(lambda: _words(50), TOKENS[:2])
    good, bad = (Task(d, x, np.zeros(6, np.int64), seed=d) for d, x in ((3, TOKENS), (8, TOKENS + 49)))
    with pytest.raises(TrainingError) as caught:
        trainer.train(trainer.initial, [good, bad], FitPlan(epochs=1, batch_size=4))
    message = str(caught.value)
    assert re.match(r"device 8: training failed in layer 'words' \(Embedding\), operation \w+: indices", message)
    assert "\n" not in message
    assert "Traceback" in caught.value.details
    again = pickle.loads(pickle.dumps(caught.value))  # our own bytes: workers may be processes
    assert (str(again), again.details) == (message, caught.value.details)
    assert len(trainer.train(trainer.initial, [good], FitPlan(epochs=1, batch_size=4))) == 1


def test_an_error_of_ours_passes_as_it_is() -> None:
    def work(tasks: Any) -> Any:
        raise DataError("as it is")

    with pytest.raises(DataError, match=r"^as it is$"):
        blamed(None, work, [])
