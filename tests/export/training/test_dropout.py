"""Dropout masks: the formula in the docstring, its statistics, and the same bits from TensorFlow and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.training.dropout import PRIME, dropout_mask, threshold


def _by_the_docstring(seed: int, step: int, layer: int, rows: int, columns: int, rate: float) -> list[list[bool]]:
    """The slow obvious version: the documented formula with Python's unbounded integers."""

    def mix(h: int) -> int:
        return pow(h, 3, PRIME)

    k = mix(seed % PRIME + 1)
    digits = (seed // PRIME, seed // PRIME**2, step % PRIME, step // PRIME, step // PRIME**2, layer)
    for number, salt in zip(digits, range(2, 8), strict=True):
        k = mix(k + number + salt)
    k2 = mix(k + 8)
    k3 = mix(k2 + 9)
    keep = []
    for i in range(rows):
        a = mix(mix(i + k) + i // PRIME)
        row = []
        for j in range(columns):
            b = mix(mix(j + k2) + j // PRIME)
            c = mix(mix(j + k3) + j // PRIME)
            row.append(mix(mix(a + b) + c) >= round(rate * PRIME))
        keep.append(row)
    return keep


int32 = st.integers(0, 2**31 - 1)


@given(int32, int32, st.integers(0, 300), st.floats(0.01, 0.99))
def test_mask_is_the_documented_one_and_nothing_overflows(seed: int, step: int, layer: int, rate: float) -> None:
    with np.errstate(over="raise"):
        got = dropout_mask(seed, step, layer, (3, 5), rate)
    assert got.tolist() == _by_the_docstring(seed, step, layer, 3, 5, rate)


def test_many_columns_use_their_high_part() -> None:
    got = dropout_mask(3, 1, 0, (1, PRIME + 5), 0.5)
    assert got[0, -5:].tolist() == _by_the_docstring(3, 1, 0, 1, PRIME + 5, 0.5)[0][-5:]


def test_the_cube_is_a_permutation() -> None:
    h = np.arange(PRIME, dtype=np.int64)
    assert np.unique(h**3 % PRIME).size == PRIME


@settings(max_examples=30)
@given(int32, int32, st.sampled_from([0.1, 0.25, 0.5, 0.8]))
def test_kept_share_is_the_rate(seed: int, step: int, rate: float) -> None:
    mask = dropout_mask(seed, step, 0, (64, 256), rate)
    deviation = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(mask.mean() - (1 - threshold(rate) / PRIME)) < 8 * deviation


def test_rows_columns_seeds_steps_and_layers_are_not_alike() -> None:
    mask = dropout_mask(7, 3, 1, (256, 512), 0.4)
    centred = (mask - mask.mean()) / mask.std()
    for gram, count in ((centred @ centred.T, 512), (centred.T @ centred, 256)):
        beside = gram[np.triu_indices(len(gram), 1)] / np.sqrt(count)
        assert 0.8 < beside.std() < 1.2, "correlations are those of independent draws"
    for other in ((8, 3, 1), (7, 4, 1), (7, 3, 2)):
        there = dropout_mask(*other, (256, 512), 0.4)
        assert abs(np.corrcoef(mask.ravel(), there.ravel())[0, 1]) < 6 / np.sqrt(mask.size)


@pytest.mark.tf
def test_tensorflow_draws_the_same_bits() -> None:
    import tensorflow as tf

    from export.training.dropout import keep_tensor, key_tensor

    for seed, step, layer in ((0, 0, 0), (2**31 - 1, 2**31 - 1, 7), (123456789, 46337, 1)):
        key = key_tensor(tf.constant(seed), tf.constant(step))
        got = keep_tensor(key, layer, [4, 3, 5], 0.3)
        np.testing.assert_array_equal(got.numpy() > 0, dropout_mask(seed, step, layer, (4, 3, 5), 0.3))


@pytest.mark.tf
def test_a_mapped_loop_over_devices_draws_every_devices_masks() -> None:
    """As the keras engine needs them: many seeds at once, steps in a loop, a batch unknown while tracing."""
    import keras
    import tensorflow as tf

    from export.training.layers import keyed_dropout

    rate, seeds = 0.4, [3, 2**31 - 1, 77]
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dropout(rate)])

    @tf.autograph.experimental.do_not_convert
    def call(x: Any, seed: Any, step: Any) -> Any:
        with keyed_dropout(model, seed, step):
            return model(x, training=True)

    def two_steps(x: Any, seeds: Any) -> Any:
        total = tf.zeros_like(x)
        for step in tf.range(2):
            steps = tf.fill(tf.shape(seeds), step)
            total += tf.vectorized_map(lambda device: call(*device), (x, seeds, steps)) * tf.cast(
                1 + 9 * step, tf.float32
            )
        return total

    specs = [tf.TensorSpec([None, None, 5]), tf.TensorSpec([None], tf.int32)]
    compiled = tf.function(two_steps, input_signature=specs)
    for rows in (4, 2):
        got = compiled(tf.ones([3, rows, 5]), tf.constant(seeds)).numpy()
        for device, seed in enumerate(seeds):
            first, second = (dropout_mask(seed, step, 0, (4, 5), rate)[:rows] for step in (0, 1))
            np.testing.assert_allclose(got[device], (first + 10 * second) / (1 - rate), rtol=1e-6)
    assert "call" not in vars(model.layers[0]), "the user's layer must be as it was"
