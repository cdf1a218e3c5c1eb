"""Every loss over every head that fits it, against Keras' own loss objects; heads that fit none are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_mobile.errors import ConfigError, ModelError
from fl_mobile.local import LOSSES
from fl_mobile.local.losses import check_outputs, evaluation_loss, loss_of, right_answers, training_loss
from fl_mobile.records import FitPlan

pytestmark = pytest.mark.tf

HEADS = {"one logit": 1, "sigmoid": 1, "logits": 3, "softmax": 3, "sigmoids": 3}
KERAS = {
    "sparse-categorical-crossentropy": "SparseCategoricalCrossentropy",
    "categorical-crossentropy": "CategoricalCrossentropy",
    "binary-crossentropy": "BinaryCrossentropy",
    "categorical-focal-crossentropy": "CategoricalFocalCrossentropy",
    "binary-focal-crossentropy": "BinaryFocalCrossentropy",
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "huber": "Huber",
}


def _fits(loss: str, width: int) -> bool:
    return LOSSES[loss].one_output if width == 1 else LOSSES[loss].one_per_class


def _out(head: str, raw: Any) -> Any:
    import tensorflow as tf

    return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "sigmoids": tf.sigmoid}.get(head, tf.identity)(raw)


def _keras_targets(loss: str, y: np.ndarray, width: int) -> np.ndarray:
    """Labels as a user of ``model.fit`` would hand them over."""
    if loss.startswith("sparse"):
        return y
    return y.astype(np.float32)[:, None] if width == 1 else np.eye(width, dtype=np.float32)[y]


@pytest.mark.parametrize(("loss", "head"), [(n, h) for n in LOSSES for h, w in HEADS.items() if _fits(n, w)])
def test_loss_and_gradient_are_those_of_model_fit(loss: str, head: str) -> None:
    import keras
    import tensorflow as tf

    width, logits = HEADS[head], "logit" in head
    rng = np.random.default_rng(3)
    y = rng.integers(0, max(width, 2), 7)
    options = {"from_logits": True} if logits and "crossentropy" in loss else {}
    reference = getattr(keras.losses, KERAS[loss])(**options)
    raw = tf.constant(rng.standard_normal((7, width)), tf.float32)
    results = []
    for of in (
        lambda out: tf.reduce_mean(loss_of(loss, tf.constant(y), out, from_logits=logits)),
        lambda out: reference(_keras_targets(loss, y, width), out),
    ):
        with tf.GradientTape() as tape:
            tape.watch(raw)
            value = of(_out(head, raw))
        results.append((value, tape.gradient(value, raw)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("loss", "head"), [(n, h) for n in LOSSES for h, w in HEADS.items() if _fits(n, w)])
def test_class_weights_and_smoothing_are_those_of_model_fit(loss: str, head: str) -> None:
    """Keras looks class weights up as weights of examples, and divides by the number of examples."""
    import keras
    import tensorflow as tf

    width, logits, smooth = HEADS[head], "logit" in head, 0.1 if LOSSES[loss].smooths else 0.0
    rng, weights = np.random.default_rng(4), (0.5, 3.0, 0.0)[: max(HEADS[head], 2)]
    y = rng.integers(0, max(width, 2), 9)
    options = {"from_logits": logits, "label_smoothing": smooth} if smooth else {}
    name = KERAS["categorical-crossentropy" if loss.startswith("sparse") else loss]  # the sparse one smooths nothing
    truth = _keras_targets("dense" if loss.startswith("sparse") else loss, y, width)
    raw = tf.constant(rng.standard_normal((9, width)), tf.float32)
    wanted = getattr(keras.losses, name)(**options)(truth, _out(head, raw), sample_weight=np.array(weights)[y])
    plan = FitPlan(loss=loss, from_logits=logits, label_smoothing=smooth, class_weights=weights)
    found = tf.reduce_mean(training_loss(plan, tf.constant(y), _out(head, raw)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    plain = loss_of(loss, tf.constant(y), _out(head, raw), from_logits=logits)
    np.testing.assert_array_equal(evaluation_loss(plan, tf.constant(y), _out(head, raw)), plain)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loss": "mse", "label_smoothing": 0.1}, "label-smoothing is for .*and the loss is mse: leave it at 0"),
        ({"label_smoothing": 1.0}, "label-smoothing must be at least 0 and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "got -0.1"),
        ({"class_weights": (1.0, -1.0)}, "class-weights must be at least 0, and one above, got 1.0, -1.0"),
        ({"class_weights": (0.0, 0.0)}, "one above"),
        ({"class_weights": (1.0, float("nan"))}, "got 1.0, nan"),
        ({"task": "regression", "loss": "mse", "class_weights": (1.0,)}, "are for tasks of classes.*leave them out"),
    ],
)
def test_weights_and_smoothing_that_mean_nothing_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FitPlan(**change)


@pytest.mark.parametrize(("loss", "head"), [(n, h) for n in LOSSES for h, w in HEADS.items() if _fits(n, w)])
def test_what_a_loss_pulls_to_is_right(loss: str, head: str) -> None:
    """Descent from zero on the outputs of one example a class ends in right answers, none the wrong way round."""
    import tensorflow as tf

    width, logits = HEADS[head], "logit" in head
    y = tf.range(max(width, 2))
    raw = tf.zeros((len(y), width))
    for _ in range(80):
        with tf.GradientTape() as tape:
            tape.watch(raw)
            value = tf.reduce_sum(loss_of(loss, y, _out(head, raw), from_logits=logits))
        raw -= 0.3 * tape.gradient(value, raw)
    assert bool(tf.reduce_all(right_answers(loss, y, _out(head, raw), from_logits=logits)))


@pytest.mark.parametrize(("loss", "width"), [(n, w) for n in LOSSES for w in (1, 2, 5) if not _fits(n, w)])
def test_a_head_that_a_loss_cannot_train_is_refused_with_another_loss(loss: str, width: int) -> None:
    with pytest.raises(ModelError, match=r'train\.loss = "(binary|sparse-categorical)-crossentropy"'):
        check_outputs(loss, width)


def test_an_unknown_loss_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'mean-squared'"):
        check_outputs("mean-squared", 1)
