"""Numbers of random layers: the formulas in the docstring, their statistics, and the same from TensorFlow and NumPy."""

from __future__ import annotations

import math
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.training.draws import HASHES, drawn_array
from export.training.dropout import PRIME, hashes
from fl_mobile.models.draws import Draw

FLOAT, INT = SimpleNamespace(as_numpy_dtype=np.float32), SimpleNamespace(as_numpy_dtype=np.int32)
SEED, STEP = 2**31 - 5, 46_337


def draw_of(kind: str, shape: tuple[int, ...], low: int = -3, high: int = 10) -> Draw:
    return Draw(kind, shape, INT if kind == "whole" else FLOAT, low, high)


@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("kind", HASHES)
def test_numbers_are_the_documented_ones(kind: str, shape: tuple[int, ...]) -> None:
    """The slow obvious version, by Python's own numbers."""
    got = drawn_array(draw_of(kind, shape), (8, 9), SEED, STEP)
    assert got.shape == shape
    h1, h2 = (hashes(SEED, STEP, number, shape).ravel().tolist() for number in (8, 9))
    for value, a, b in zip(got.ravel().tolist(), h1, h2, strict=True):
        if kind == "uniform":
            assert value == pytest.approx((a + 0.5) / PRIME, rel=1e-6)
        elif kind == "normal":
            u, v = (a + 0.5) / PRIME, (b + 0.5) / PRIME
            assert value == pytest.approx(math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v), abs=5e-6)
        else:
            assert value == -3 + (a * PRIME + b) % 13


def test_numbers_are_spread_as_they_say() -> None:
    u, z, w = (drawn_array(draw_of(kind, (300, 700)), (0, 1), 5, 2) for kind in ("uniform", "normal", "whole"))
    assert 0 < u.min() < 1e-4 < 1 - 1e-4 < u.max() < 1
    assert np.abs(np.quantile(u, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 5e-3
    assert (abs(z.mean()), abs(z.var() - 1), abs((z**4).mean() - 3)) < (0.01, 0.02, 0.1)
    assert np.abs(np.quantile(z, [0.01, 0.16, 0.84, 0.99]) - [-2.326, -0.994, 0.994, 2.326]).max() < 0.03
    share = np.bincount((w + 3).ravel(), minlength=13) / w.size
    assert np.abs(share - 1 / 13).max() < 3e-3
    for other in (drawn_array(draw_of("normal", (300, 700)), pair, 5, 2) for pair in ((2, 3), (1, 2))):
        assert abs(np.corrcoef(z.ravel(), other.ravel())[0, 1]) < 0.01


@pytest.mark.tf
@pytest.mark.parametrize("kind", HASHES)
def test_tensorflow_draws_the_same(kind: str) -> None:
    import tensorflow as tf

    from export.training.draws import drawn_tensor
    from export.training.dropout import key_tensor

    dtype = tf.int32 if kind == "whole" else tf.float32
    bound = 3e-6 if kind == "normal" else 0.0

    def draw(x: Any, seed: Any, step: Any) -> Any:
        return drawn_tensor(Draw(kind, tf.shape(x), dtype, -3, 10), (8, 9), key_tensor(seed, step))

    want = drawn_array(draw_of(kind, (6, 2, 3)), (8, 9), SEED, STEP)
    scalar = tf.TensorSpec((), tf.int32)
    for shape, rows in (((6, 2, 3), 6), ((None, 2, 3), 4), ((None, None, None), 6)):
        traced = tf.function(draw).get_concrete_function(tf.TensorSpec(shape), scalar, scalar)
        got = traced(tf.ones((rows, 2, 3)), tf.constant(SEED), tf.constant(STEP))
        np.testing.assert_allclose(got, want[:rows], atol=bound, rtol=0)


@pytest.mark.tf
def test_whoever_draws_is_answered_in_this_thread_and_block_alone() -> None:
    import keras
    import tensorflow as tf

    from fl_mobile.models.draws import answered_draws

    generator, asked = keras.random.SeedGenerator(3), []

    def answer(draw: Draw) -> Any:
        asked.append((draw.kind, tuple(np.asarray(draw.shape)), draw.dtype))
        return tf.zeros(draw.shape, draw.dtype)

    def seed(dtype: str) -> Any:
        return tf.zeros([2], dtype)

    forms: dict[str, Any] = {
        "keras": lambda: keras.random.normal((2, 3), 1.0, 2.0, seed=generator),
        "keras, no seed": lambda: keras.random.uniform((4,), -1.0, 1.0),
        "keras, whole": lambda: keras.random.randint((5,), 2, 9, seed=generator),
        "keras, dropout": lambda: keras.random.dropout(np.ones((2, 2), np.float32), 0.5, seed=generator),
        "tf": lambda: tf.random.normal((2,), 1.0),
        "tf, uniform": lambda: tf.random.uniform((3,), 2.0, 4.0),
        "tf, whole": lambda: tf.random.uniform((3,), 2, 4, tf.int64),
        "tf.nn": lambda: tf.nn.dropout(tf.ones((2, 2)), 0.5),
        "tf.image": lambda: tf.image.random_flip_left_right(tf.ones((2, 4, 4, 1))),
    }
    seen = {}
    with answered_draws(seed, answer):
        for name, form in forms.items():
            seen[name] = np.asarray(form())
            assert asked, f"{name} was not asked"
            asked.clear()
        thread = Thread(target=lambda: seen.update(other=np.asarray(tf.random.normal((9,)))))
        thread.start(), thread.join()
        fixed = [np.asarray(keras.random.normal((4,), seed=7)) for _ in range(2)]
    assert not asked, "another thread and a whole number as seed draw as they always do"
    np.testing.assert_array_equal(*fixed)
    assert np.any(fixed[0])
    assert np.any(seen["other"])
    assert (seen["keras"] == 1.0).all()
    assert (seen["tf, uniform"] == 2.0).all()
    assert (seen["keras, no seed"] == -1).all()
    assert np.any(np.asarray(tf.random.normal((9,)))), "nobody is asked outside the block"
