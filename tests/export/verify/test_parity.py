"""The judgement of differences: noise is forgiven where the model was undecided, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.convert.recipes import RECIPES
from export.verify.parity import OutputParity, compare, preference_noise

INT8 = RECIPES["int8"].tolerance
FRAMES, CLASSES = 1000, 10


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def judged(rows: np.ndarray, keras: np.ndarray, labels: np.ndarray, **changes: Any) -> OutputParity:
    return compare("digit", rows, keras, labels, **{"tolerance": INT8, "probabilities": True, **changes})


def a_model(certainty: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and true classes; the less certain, the more frames it is undecided about, and the more wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, FRAMES)
    logits = rng.normal(size=(FRAMES, CLASSES))
    logits[np.arange(FRAMES), labels] += certainty
    return logits, labels


@pytest.mark.parametrize("certainty", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_noise_passes_however_undecided_the_model(certainty: float, seed: int) -> None:
    logits, labels = a_model(certainty, seed)
    noise = np.random.default_rng(seed + 100).normal(scale=0.15, size=logits.shape)
    parity = judged(softmax(logits + noise), softmax(logits), labels)
    assert parity.failures == ()
    if certainty == 3.0:
        assert parity.tie_flips > 10, "an undecided model does change its mind"


@pytest.mark.parametrize("certainty", [3.0, 8.0])
def test_a_few_frames_answered_wrongly_are_caught_though_all_others_are_exact(certainty: float) -> None:
    """3 % of another class: accuracy may even be spared, when those frames were wrong before."""
    logits, labels = a_model(certainty)
    keras = softmax(logits)
    wrong = keras.argmax(axis=1) != labels if certainty == 3.0 else np.arange(FRAMES) < 30
    sure = wrong & (np.sort(keras, axis=1)[:, -1] - np.sort(keras, axis=1)[:, -2] > 0.07)
    assert sure.sum() > 20
    rows = keras.copy()
    rows[sure] = np.roll(keras[sure], 1, axis=1)
    assert any("first class differs" in words for words in judged(rows, keras, labels).failures)


def test_a_minority_of_wrong_frames_does_not_pass_as_noise() -> None:
    logits, labels = a_model(3.0)
    keras, rng = softmax(logits), np.random.default_rng(1)
    small = softmax(logits + rng.normal(scale=0.05, size=logits.shape))
    damaged = np.where(rng.random(FRAMES)[:, None] < 0.4, np.roll(keras, 1, axis=1), small)
    order = np.sort(keras, axis=1)
    undecided = order[:, -1] - order[:, -2] < 0.5
    assert preference_noise(damaged.astype(float), keras.astype(float)) < 8 * preference_noise(
        small.astype(float), keras.astype(float)
    )
    assert undecided.sum() > 100
    assert any("first class differs" in words for words in judged(damaged, keras, labels).failures)


def test_noise_that_explains_everything_is_refused_itself() -> None:
    logits, labels = a_model(3.0)
    rows = softmax(np.random.default_rng(2).normal(size=logits.shape) * 3)
    failures = " ".join(judged(rows, softmax(logits), labels).failures)
    assert "mean probability difference" in failures
    assert "first class differs" in failures
    assert "accuracy" in failures


def test_ties_that_all_fall_the_wrong_way_cost_accuracy() -> None:
    """Noise breaks and repairs alike; 40 undecided frames that all break are not noise."""
    keras = np.tile(np.array([0.51, 0.49] + [0.0] * 8, np.float32), (FRAMES, 1))
    labels, rows = np.zeros(FRAMES, np.int64), keras.copy()
    rows[:40] = rows[:40, [1, 0, *range(2, 10)]]
    parity = judged(rows, keras, labels)
    assert parity.tie_flips == 40
    assert "accuracy 0.9600, Keras 1.0000" in parity.failures
    fair = labels.copy()
    fair[20:40] = 1  # half of them are repaired instead
    assert judged(rows, keras, fair).failures == ()


@pytest.mark.parametrize(("count", "beyond", "passes"), [(1000, 2, True), (1000, 3, False), (300, 1, False)])
def test_a_share_of_frames_may_lie_beyond_the_largest_difference(count: int, beyond: int, passes: bool) -> None:
    keras = np.tile(np.array([0.95, 0.05] + [0.0] * 8, np.float32), (count, 1))
    rows = keras.copy()
    rows[:beyond, :2] = 0.52, 0.48
    assert (judged(rows, keras, np.zeros(count, np.int64)).failures == ()) == passes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    logits, labels = a_model(5.0)
    rows = softmax(logits)
    rows[3, 4] = value
    with np.errstate(invalid="ignore"):
        assert any("max probability difference" in words for words in judged(rows, softmax(logits), labels).failures)
        plain = compare("angle", rows[:, 4:5], softmax(logits)[:, 4:5], None, INT8, probabilities=False)
    assert any("max relative value difference" in words for words in plain.failures)


def test_plain_values_are_measured_in_their_range() -> None:
    keras = np.linspace(-500, 1500, 200, dtype=np.float32)[:, None]
    parity = compare("angle", keras + 20, keras, None, INT8, probabilities=False)
    assert parity.unit == 2000
    assert parity.max_abs_diff == pytest.approx(0.01, rel=1e-3)
    assert (parity.accuracy, parity.argmax_agreement, parity.failures) == (None, None, ())
    assert compare("angle", keras * 0 + 500, keras, None, INT8, probabilities=False).failures


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 2))
def test_the_order_of_frames_and_classes_means_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(60, 5)) * 2, rng.integers(0, 5, 60)
    keras, rows = softmax(logits), softmax(logits + rng.normal(size=logits.shape) * scale)
    frames, classes = rng.permutation(60), rng.permutation(5)
    there = np.argsort(classes)
    plain = judged(rows, keras, labels)
    moved = judged(rows[frames][:, classes], keras[frames][:, classes], there[labels[frames]])
    assert moved.noise == pytest.approx(plain.noise, abs=1e-6)
    assert (moved.accuracy, moved.argmax_agreement) == (plain.accuracy, plain.argmax_agreement)
    assert moved.max_abs_diff == plain.max_abs_diff
    assert bool(moved.failures) == bool(plain.failures)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_same_answers_pass_every_recipe(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keras, labels = softmax(rng.normal(size=(40, 4))), rng.integers(0, 4, 40)
    for recipe in RECIPES.values():
        parity = judged(keras, keras, labels, tolerance=recipe.tolerance)
        assert (parity.failures, parity.noise, parity.tie_flips) == ((), 0.0, 0)


@pytest.mark.parametrize(("wrong", "passes"), [(100, True), (400, False)])
def test_of_pixels_a_share_may_lie_far_off_as_of_frames(wrong: int, passes: bool) -> None:
    """100,000 places of 50 frames: a frame has a pixel on an edge that 8 bits decide otherwise, and is the model."""
    rng = np.random.default_rng(0)
    keras = softmax(6 * rng.normal(size=(100_000, 4)))
    rows = keras.copy()
    rows[rng.choice(len(rows), wrong, replace=False)] = 0.25
    far = (np.abs(rows - keras).max(axis=1) > INT8.max_abs).sum()
    assert 0.5 * wrong < far
    shape = (50, 40, 50, 4)
    found = compare("pixels", rows.reshape(shape), keras.reshape(shape), None, INT8, probabilities=True)
    assert (not found.failures) == passes, found.failures
    assert passes or "of 100000 places" in found.failures[0]
    moved = np.roll(keras.reshape(shape), 1, axis=1)
    assert compare("pixels", moved, keras.reshape(shape), None, INT8, probabilities=True).failures
