"""Losses of every task in TensorFlow against Keras' own on every example alone; fits that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_mobile.errors import ConfigError, ModelError
from fl_mobile.local.losses import check_answers_fit, check_terms, loss_of, middle_of, right_answers
from fl_mobile.models.ends import names_may_differ
from fl_mobile.tasks import TASKS, measured, tally_of
from fl_mobile.tasks.heads import joined
from fl_mobile.tasks.table import CLASSES
from tests.fl_mobile.tasks.test_tasks import HEADS, SEVERAL, K, drawn, softmax

pytestmark = pytest.mark.tf
CASES = [(task, loss) for task, row in TASKS.items() if task != "classification" for loss in row.losses]


def by_keras(loss: str, y: np.ndarray, out: np.ndarray, *, logits: bool) -> float:
    """Returns the loss of one example: Keras' mean over the positions that are no padding, or over the numbers."""
    import keras

    if loss.startswith("sparse"):
        real = y >= 0
        if not real.any():
            return 0.0
        return float(keras.losses.SparseCategoricalCrossentropy(from_logits=logits)(y[real], out[real]))
    if loss.startswith("categorical-focal"):
        hot = np.eye(out.shape[-1], dtype=np.float32)[y[y >= 0]]
        of = keras.losses.CategoricalFocalCrossentropy(from_logits=logits)
        return float(of(hot, out[y >= 0])) if len(hot) else 0.0
    if loss.startswith("binary"):
        kind = keras.losses.BinaryFocalCrossentropy if "focal" in loss else keras.losses.BinaryCrossentropy
        return float(kind(from_logits=logits)(y, out))
    kind = {"mse": keras.losses.MeanSquaredError, "mae": keras.losses.MeanAbsoluteError, "huber": keras.losses.Huber}
    return float(kind[loss]()(y.reshape(-1), out.reshape(-1)))


@pytest.mark.parametrize(("task", "loss"), CASES)
@pytest.mark.parametrize("logits", [True, False])
def test_the_loss_of_an_example_is_that_of_keras(task: str, loss: str, logits: bool) -> None:
    import tensorflow as tf

    y, out = drawn(task, 8, 0)
    if TASKS[task].padded:
        y[3] = -1
    if not logits:
        out = (softmax(out) if TASKS[task].kind == CLASSES else 1 / (1 + np.exp(-out))).astype(np.float32)
    found = loss_of(loss, tf.constant(y), tf.constant(out), from_logits=logits, task=task).numpy()
    wanted = [by_keras(loss, one, answer, logits=logits) for one, answer in zip(y, out, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_loss_of_several_heads_is_the_weighted_sum_of_theirs_by_keras() -> None:
    import tensorflow as tf

    y, out = drawn(SEVERAL, 8, 5)
    found = loss_of("sum-of-heads", tf.constant(y), tf.constant(out), from_logits=True, task=SEVERAL).numpy()
    alone = {head.name: drawn(head.task, 8, 5) for head in HEADS}
    wanted = [
        sum(h.weight * by_keras(h.loss, *(np.asarray(part[i]) for part in alone[h.name]), logits=True) for h in HEADS)
        for i in range(8)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    right = np.asarray(right_answers("sum-of-heads", tf.constant(y), tf.constant(out), from_logits=True, task=SEVERAL))
    assert right.shape == (8,)
    assert ((right >= 0) & (right <= 0.75)).all(), "numbers count as never right"


def test_classes_of_heads_weigh_as_sample_weights_by_head_do_in_keras() -> None:
    import keras
    import tensorflow as tf

    alone = {head.name: drawn(head.task, 8, 5) for head in HEADS}
    alone["next"] = np.maximum(alone["next"][0], 0), alone["next"][1]  # Keras divides by padding too
    weights = {"mood": np.linspace(0.5, 3, K), "next": np.linspace(2, 0, K)}
    y, out = (joined({name: pair[i] for name, pair in alone.items()}) for i in (0, 1))
    terms: dict[str, Any] = {"task": SEVERAL, "class_weights": (*weights["mood"], *weights["next"])}
    found = loss_of("sum-of-heads", tf.constant(y), tf.constant(out), from_logits=True, **terms).numpy()
    inputs = {head.name: keras.Input(head.answer) for head in HEADS}
    with names_may_differ():
        model = keras.Model(inputs, {name: keras.layers.Identity(name=name)(x) for name, x in inputs.items()})
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    of = {"mood": sparse, "next": sparse, "tags": keras.losses.BinaryCrossentropy(from_logits=True), "pain": "huber"}
    model.compile("sgd", loss=of, loss_weights={head.name: head.weight for head in HEADS})
    told = {name: pair[0] for name, pair in alone.items()}
    each = {name: weights[name][part] if name in weights else np.ones(8) for name, part in told.items()}
    answers = {name: pair[1] for name, pair in alone.items()}
    wanted = model.evaluate(answers, told, batch_size=8, sample_weight=each, verbose=0, return_dict=True)["loss"]
    assert found.mean() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ConfigError, match=r"one for each class of each head \(mood 5, next 5\), got 5"):
        check_terms("sum-of-heads", SEVERAL, 0.0, tuple(weights["mood"]))


@pytest.mark.parametrize("task", ["sequence", "segmentation"])
def test_a_position_has_the_weight_of_its_class_and_is_smoothed(task: str) -> None:
    import keras
    import tensorflow as tf

    y, out = drawn(task, 8, 2)
    y[3], classes = -1, out.shape[-1]
    weights = tuple(np.linspace(0.5, 3, classes).tolist())
    found = loss_of("sparse-categorical-crossentropy", tf.constant(y), tf.constant(out), from_logits=True, task=task,
                    smoothing=0.2, class_weights=weights).numpy()  # fmt: skip
    of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    for one, answer, value in zip(y, out, found, strict=True):
        real = one >= 0
        hot, each = np.eye(classes, dtype=np.float32)[one[real]], np.array(weights)[one[real]]
        assert value == pytest.approx(float(of(hot, answer[real], sample_weight=each)) if real.any() else 0, rel=1e-5)


@pytest.mark.parametrize(("task", "loss"), [(task, loss) for task, row in TASKS.items() for loss in row.losses])
def test_right_answers_are_shares_of_an_example(task: str, loss: str) -> None:
    import tensorflow as tf

    y, out = drawn(task, 30, 1)
    right = right_answers(loss, tf.constant(y), tf.constant(out), from_logits=True, task=task)
    middle = middle_of(loss, from_logits=True)
    for one, answer, share in zip(y, out, np.asarray(right, np.float32), strict=True):
        tally = tally_of(task, one[None], answer[None], from_logits=True, middle=middle)
        metric = "bit-accuracy" if task == "multi-label" else "accuracy"
        assert share == pytest.approx(measured(task, tally).get(metric, 0.0), abs=1e-6)


def test_a_tag_that_a_distance_pulled_to_0_or_1_is_told_at_a_half() -> None:
    import tensorflow as tf

    y = tf.constant([[0.0, 1.0, 1.0, 0.0]])
    out = tf.constant([[0.1, 0.9, 0.6, 0.4]])
    assert float(right_answers("mse", y, out, from_logits=True, task="multi-label")[0]) == 1.0
    assert float(right_answers("binary-crossentropy", y, out, from_logits=True, task="multi-label")[0]) == 0.5


@pytest.mark.parametrize(
    ("task", "shape", "target", "told"),
    [
        ("sequence", (5,), (7,), r"needs \(batch, 7, 5\)"),
        ("sequence", (7, 4), (7,), r"needs \(batch, 7, 5\)"),
        ("multi-label", (3,), (5,), r"needs \(batch, 5\)"),
        ("regression", (2,), (1,), r"needs \(batch, 1\)"),
        ("classification", (7, 5), (), r"add a pooling or Flatten"),
        ("classification", (6,), (), r"has 6 outputs for 5 classes"),
    ],
)
def test_answers_that_do_not_fit_the_targets_are_refused(
    task: str, shape: tuple[int, ...], target: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        check_answers_fit(task, TASKS[task].losses[0], shape, target, 5, what="the model")
