"""Random models: each is trained as Keras trains it, or refused by name; nothing silent, no traceback.

`build_training_program` holds every program against Keras itself; the slow form asks ``fit``'s own step besides.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.training import open_session
from export.training.program import TrainingProgram, build_training_program
from fl_mobile.errors import FlMobileError
from fl_mobile.models import keras_bridge
from tests.export.training.zoo import Animal, by_number, draw

pytestmark = pytest.mark.tf
FEW = 12


def answers(animal: Animal) -> bool:
    """Returns whether Keras itself can run the model: RandomCrop of odd sizes may leave another shape than it told."""
    try:
        shape = (animal.options["batch_size"], *animal.model.input_shape[1:])
        animal.model(np.zeros(shape, np.float32), training=False)
    except ValueError:
        return False
    return True


def met(animal: Animal) -> TrainingProgram | None:
    """Builds the program; a refusal must be one line, of a model that may be refused, and name what it is about."""
    try:
        return build_training_program(animal.model, **animal.options)
    except FlMobileError as error:
        text = str(error)
        assert "\n" not in text, text
        assert "'" in text, f"names nothing: {text}"
        known = not animal.trains or "no finite number" in text or "no trainable variable" in text
        known = known or not answers(animal)
        assert known, f"{animal}: {text}"
        return None


@pytest.mark.parametrize("number", range(FEW))
def test_a_random_model_is_trained_as_keras_trains_it_or_refused_by_name(number: int) -> None:
    met(draw(by_number(number)))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_random_models(data: Any) -> None:
    animal = draw(lambda options: data.draw(st.sampled_from(list(options))))
    made = met(animal)
    if made is not None and animal.options["optimizer"] == "sgd" and not made.contract.dropout_layers:
        assert_fit_agrees(animal, made)


def assert_fit_agrees(animal: Animal, made: TrainingProgram) -> None:
    """Compares one step with what ``train_on_batch`` does, compiled by Keras."""
    options, model = animal.options, animal.model
    rng = np.random.default_rng(1)
    x = rng.standard_normal((options["batch_size"], *model.input_shape[1:])).astype(np.float32)
    outputs = model.output_shape[-1]
    y = rng.integers(0, max(outputs, 2), options["batch_size"])
    session, start = open_session(made.tflite, made.contract), keras_bridge.read(model)
    session.set_weights(start)
    session.train(x, y, learning_rate=0.05)
    losses = {
        "mse": keras.losses.MeanSquaredError(),
        "binary-crossentropy": keras.losses.BinaryCrossentropy(options["from_logits"]),
        "sparse-categorical-crossentropy": keras.losses.SparseCategoricalCrossentropy(options["from_logits"]),
    }
    told = y if "sparse" in options["loss"] else (y[:, None] if outputs == 1 else np.eye(outputs)[y])
    optimizer = keras.optimizers.SGD(0.05, global_clipnorm=options["clip_norm"] or None)
    model.compile(optimizer, losses[options["loss"]])
    model.train_on_batch(x, told)
    got, want = session.get_weights(), keras_bridge.read(model)
    away, moved = (max(float(np.abs(one[p] - want[p]).max()) for p in want) for one in (got, start))
    assert away <= 1e-3 * moved + 1e-6, str(animal)
