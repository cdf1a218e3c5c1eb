"""Weights of examples: metrics are scikit-learn's by ``sample_weight``, and a weight is how often an example counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from fl_mobile.errors import ConfigError, DataError
from fl_mobile.records import FitPlan
from fl_mobile.tasks import TASKS, added, measured, tally_of, task_row
from fl_mobile.tasks.table import CLASSES
from fl_mobile.tasks.weighted import checked_weights, parted, weighted, weighted_of, with_weights
from tests.fl_mobile.tasks.test_tasks import NAMES, ORACLES, SEVERAL, SIZES, drawn, softmax

EVERY = [*TASKS, SEVERAL]


def told(task: str, y: np.ndarray, out: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    name = weighted(task, y.shape[1:])
    return measured(name, tally_of(name, with_weights(y, weight.astype(np.float32)), out, from_logits=True))


@pytest.mark.parametrize(("task", "metric"), ORACLES)
def test_a_weight_is_how_often_scikit_learn_sees_an_example(task: str, metric: str) -> None:
    y, out = drawn(task, 200, 0)
    times = np.random.default_rng(1).integers(0, 5, 200)
    want = ORACLES[task, metric](np.repeat(y, times, axis=0), np.repeat(out, times, axis=0))
    found = told(task, y, out, times / 4)  # no metric asks for more than their ratios
    assert found[metric] == pytest.approx(want, rel=1e-6)
    assert next(iter(found)) == TASKS[task].metrics[0]


def test_metrics_are_those_of_sample_weight() -> None:
    weight = np.random.default_rng(2).uniform(0.1, 3, 200).astype(np.float32)
    by = {"sample_weight": weight}
    y, out = drawn("classification", 200, 0)
    classes = told("classification", y, out, weight)
    assert classes["accuracy"] == pytest.approx(sk.accuracy_score(y, out.argmax(1), **by))
    assert classes["macro-f1"] == pytest.approx(sk.f1_score(y, out.argmax(1), average="macro", **by))
    assert classes["balanced-accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, out.argmax(1), **by))
    two = told("classification", y % 2, out[:, :2], weight)
    assert two["auc"] == pytest.approx(sk.roc_auc_score(y % 2, out[:, 1] - out[:, 0], **by))
    y, out = drawn("multi-label", 200, 0)
    tags = told("multi-label", y, out, weight)
    assert tags["auc"] == pytest.approx(sk.roc_auc_score(y, out, average="macro", **by))
    assert tags["average-precision"] == pytest.approx(sk.average_precision_score(y, out, average="macro", **by))
    y, out = drawn("regression", 200, 0)
    numbers = told("regression", y, out, weight)
    assert numbers["r2"] == pytest.approx(sk.r2_score(y, out, multioutput="variance_weighted", **by), rel=1e-6)
    assert numbers["rmse"] == pytest.approx(sk.root_mean_squared_error(y, out, **by), rel=1e-6)
    y, out = drawn("sequence", 200, 0)
    real, each = y >= 0, np.broadcast_to(weight[:, None], y.shape)
    loss = sk.log_loss(y[real], softmax(out[real]), labels=range(out.shape[-1]), sample_weight=each[real])
    assert told("sequence", y, out, weight)["perplexity"] == pytest.approx(np.exp(loss), rel=1e-6)


@pytest.mark.parametrize("task", EVERY)
@given(seed=st.integers(0, 2**20), cut=st.integers(1, 39))
def test_of_one_is_none_of_zero_is_left_out_and_parts_add_up(task: str, seed: int, cut: int) -> None:
    y, out = drawn(task, 40, seed)
    ones = np.ones(40)
    plain = measured(task, tally_of(task, y, out, from_logits=True))
    assert told(task, y, out, ones) == pytest.approx(plain, rel=1e-12)
    kept = np.arange(40) < cut
    assert told(task, y, out, ones * kept) == pytest.approx(told(task, y[kept], out[kept], ones[kept]), rel=1e-9)
    weight = np.random.default_rng(seed).uniform(0, 2, 40).astype(np.float32)
    name = weighted(task, y.shape[1:])
    rows = with_weights(y, weight)
    parts = [tally_of(name, rows[a:b], out[a:b], from_logits=True) for a, b in ((0, cut), (cut, 40))]
    assert measured(name, added(parts)) == pytest.approx(told(task, y, out, weight), rel=1e-9)


def test_one_example_has_no_r2_whatever_it_weighs() -> None:
    y, out = drawn("regression", 2, 0)
    assert "r2" not in told("regression", y[:1], out[:1], np.array([7.0]))
    assert "r2" in told("regression", y, out, np.array([0.25, 0.25]))


@given(task=st.sampled_from(EVERY), target=SIZES | st.just([]))
def test_weighted_tasks_are_spelled_and_read_back(task: str, target: list[int]) -> None:
    name = weighted(task, tuple(target))
    of, row = weighted_of(name), task_row(name)
    assert of is not None
    assert (of.task, of.target) == (task, tuple(target))
    assert (row.metrics, row.losses) == (task_row(task).metrics, task_row(task).losses)
    assert not row.heads
    FitPlan(task=name, loss=row.losses[0])


@given(task=st.sampled_from(EVERY), seed=st.integers(0, 99))
def test_rows_come_apart_as_they_were_put_together(task: str, seed: int) -> None:
    y, _ = drawn(task, 6, seed)
    weight = np.random.default_rng(seed).uniform(size=6).astype(np.float32)
    whole = (lambda a: a.astype(np.int64)) if task_row(task).kind == CLASSES else None
    of = weighted_of(weighted(task, y.shape[1:]))
    assert of is not None
    again, weights = parted(of, with_weights(y, weight), whole)
    np.testing.assert_array_equal(again, y.astype(np.float32))
    np.testing.assert_array_equal(weights, weight)


@pytest.mark.parametrize("text", ["weighted()", "weighted(regression)", "weighted(regression:a)", "weighted(x:-"])
def test_one_that_is_spelled_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected weighted"):
        task_row(text)


@given(NAMES)
def test_a_weighted_task_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="task"):
        task_row(f"weighted({name}:-)")


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (np.array([1.0, -0.5, 2.0, -1.0]), r"w is -0.5 at example 1, and 1 more are odd"),
        (np.array([1.0, np.nan, 2.0, 1.0]), "w is nan at example 1"),
        (np.array([1.0, 2.0, 1e60, 1.0]), r"w is 1e\+60 at example 2"),
        (np.zeros(4), "w is 0 for all 4 examples"),
        (np.ones(3), r"w is float64\(3,\), expected one number for each of 4"),
        (np.ones((4, 1)), "expected one number for each"),
        (np.array(["a"] * 4), "expected one number for each"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weight: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        checked_weights("w", weight, 4)
