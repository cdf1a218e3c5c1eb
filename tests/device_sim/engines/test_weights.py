"""Weights of examples in training: as Keras' ``train_on_batch`` has them, in every engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.engines import Task, open_engine, train_each
from fl_mobile.local.losses import training_loss
from fl_mobile.records import FitPlan
from fl_mobile.tasks import task_row
from fl_mobile.tasks.weighted import weighted, with_weights
from tests.device_sim.engines.test_tasks import BUILDS, SEVERAL, check_alike, dense, examples

pytestmark = pytest.mark.tf
COUNT, RATE = 12, 0.1
KERAS = {
    "classification": "SparseCategoricalCrossentropy",
    "multi-label": "BinaryCrossentropy",
    "sequence": "SparseCategoricalCrossentropy",
    "segmentation": "SparseCategoricalCrossentropy",
    "regression": "MeanSquaredError",
}


def build(task: str) -> Any:
    return BUILDS.get(task, partial(dense, 3))()


def normalised() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def data(task: str, seed: int = 0, count: int = COUNT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns examples without padding, which Keras' own loss does not know, and weights of which some are 0."""
    x, y = examples(task, count, seed)
    y = y if task == SEVERAL else np.abs(y) if y.dtype.kind == "i" else y
    weight = np.random.default_rng(seed + 50).uniform(-0.5, 3, count).clip(0).astype(np.float32)
    return x, y, weight


def played(task: str, engine: str, tasks: list[Task], model: Any = None, **change: Any) -> Any:
    bare = task.partition("(")[2].rpartition(":")[0] if task.startswith("weighted") else task
    given_plan: dict[str, Any] = {"batch_size": 4, "epochs": 2, "learning_rate": RATE, **change}
    plan = FitPlan(task=task, loss=task_row(task).losses[0], **given_plan)
    opened = open_engine(engine, model or partial(build, bare), tasks[0].x[:2], plan=plan, workers=1)
    try:
        plan = FitPlan(**{**vars(plan), "from_logits": opened.from_logits})
        made = [update for _, update in train_each(opened, opened.initial, tasks, plan)]
        scores = list(opened.evaluate_each(opened.initial, tasks, plan))
        return [flat(update.delta) for update in made], scores, [update.loss for update in made]
    finally:
        opened.close()


def flat(delta: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in delta.values()])


def one(task: str, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, **change: Any) -> np.ndarray:
    """Returns the update of one step on all examples."""
    name = task if weight is None else weighted(task, y.shape[1:])
    targets = y if weight is None else with_weights(y, weight)
    return played(name, "keras", [Task(0, x, targets, 0)], batch_size=0, epochs=1, **change)[0][0]


@pytest.mark.parametrize(
    ("task", "model"),
    [
        pytest.param(t, None, marks=[pytest.mark.slow] if t in ("sequence", "segmentation", "multi-label") else [])
        for t in KERAS
    ]
    + [("classification", normalised)],
)
def test_a_step_is_that_of_train_on_batch(task: str, model: Any) -> None:
    import keras

    x, y, weight = data(task)
    theirs = (model or partial(build, task))()
    loss = getattr(keras.losses, KERAS[task])
    theirs.compile(keras.optimizers.SGD(RATE), loss(from_logits=True) if "cross" in KERAS[task].lower() else loss())
    before = [v.numpy() for v in theirs.weights]
    over_positions = np.broadcast_to(weight.reshape(-1, *[1] * (y.ndim - 1)), y.shape)
    told = theirs.train_on_batch(x, y, sample_weight=over_positions if y.dtype.kind == "i" else weight)
    moved = np.concatenate([np.ravel(v.numpy() - w) for v, w in zip(theirs.weights, before, strict=True)])
    name = weighted(task, y.shape[1:])
    deltas, _, losses = played(name, "keras", [Task(0, x, with_weights(y, weight), 0)], model, batch_size=0, epochs=1)
    np.testing.assert_allclose(deltas[0], moved, atol=2e-6)
    assert losses[0] == pytest.approx(float(told), rel=1e-5)


def test_evaluation_is_that_of_evaluate() -> None:
    """Loss over the number of examples, metrics over the sum of weights, as Keras' ``weighted_metrics``."""
    import keras

    x, y, weight = data("classification")
    theirs = build("classification")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile("sgd", loss, weighted_metrics=["accuracy"])
    told = theirs.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    name = weighted("classification", ())
    score = played(name, "keras", [Task(0, x, with_weights(y, weight), 0)])[1][0]
    assert (score.loss, score.accuracy) == pytest.approx((told["loss"], told["accuracy"]), rel=1e-5)


@pytest.mark.parametrize("task", ["classification", pytest.param("sequence", marks=pytest.mark.slow)])
def test_weights_of_one_give_the_same_bytes_as_none(task: str) -> None:
    x, y = examples(task, COUNT, 0)
    ones = [Task(0, x, with_weights(y, np.ones(COUNT, np.float32)), 0)]
    want, _, _ = played(task, "keras", [Task(0, x, y, 0)])
    found, _, _ = played(weighted(task, y.shape[1:]), "keras", ones)
    assert found[0].tobytes() == want[0].tobytes()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), kept=st.integers(1, COUNT - 1), task=st.sampled_from(["classification", "regression"]))
def test_a_weight_of_zero_leaves_out_but_for_the_divisor(seed: int, kept: int, task: str) -> None:
    import tensorflow as tf

    (_, y, _), rng = data(task, seed), np.random.default_rng(seed)
    out = rng.standard_normal((COUNT, 3 if task == "classification" else 2)).astype(np.float32)
    weight = (np.arange(COUNT) < kept).astype(np.float32)
    plain = FitPlan(task=task, loss=task_row(task).losses[0])
    name = weighted(task, y.shape[1:])

    def gradient(plan: FitPlan, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
        seen = tf.constant(answers)
        with tf.GradientTape() as tape:
            tape.watch(seen)
            value = tf.reduce_mean(training_loss(plan, tf.constant(targets), seen))
        return np.asarray(tape.gradient(value, seen))

    found = gradient(replace(plain, task=name), with_weights(y, weight), out)
    assert not found[kept:].any()
    np.testing.assert_allclose(found[:kept] * COUNT / kept, gradient(plain, y[:kept], out[:kept]), rtol=1e-5, atol=1e-7)


def test_class_weights_multiply() -> None:
    x, y, weight = data("classification")
    classes = (0.5, 1.0, 4.0)
    both = one("classification", x, y, weight, class_weights=classes)
    np.testing.assert_allclose(both, one("classification", x, y, weight * np.array(classes, np.float32)[y]), atol=2e-6)


SLOW = [("regression", "vectorized"), ("sequence", "litert"), (SEVERAL, "litert"), (SEVERAL, "vectorized")]


@pytest.mark.parametrize(
    ("task", "engine"),
    [("classification", "vectorized"), ("classification", "litert"),
     *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)],
)  # fmt: skip
def test_engines_agree_and_padded_batches_stay_out(task: str, engine: str) -> None:
    tasks = []
    for device in range(3):
        x, y, weight = data(task, device, 5 + device)  # batches of 4: every device has a short one
        tasks.append(Task(device, x, with_weights(y, weight), device))
    name = weighted(task, y.shape[1:])
    want = played(name, "keras", tasks)
    check_alike(want, played(name, engine, tasks))
