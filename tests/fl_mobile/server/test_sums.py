"""Sums over devices: those of the pooled data, in any order; under privacy no device moves them by more than 1."""

from __future__ import annotations

import numpy as np
import pytest

from fl_mobile.client.sums import (
    COUNTS,
    EXAMPLES,
    SQUARES,
    SUMS,
    bounded_moments_of,
    counts_of,
    counts_question,
    moments_of,
    moments_question,
)
from fl_mobile.privacy.clipped_sum import UNIT, ClippedSum
from fl_mobile.privacy.release import release_sum
from fl_mobile.server.sums import add_up, add_up_private, moments_from, moments_from_bounded, noise_of_means
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire.sums import pack_sums, unpack_sums

RNG = np.random.default_rng(5)
ROWS = [(RNG.standard_normal((n, 4)) * [1, 1e-3, 1e4, 1] + [0, 5, -3e4, 7]).astype(np.float32) for n in (3, 1, 40, 17)]
MOMENTS = moments_question(4)


def packets(rows: list[np.ndarray]) -> list[bytes]:
    return [pack_sums(MOMENTS, moments_of(part)) for part in rows]


def test_sums_of_devices_give_the_moments_of_the_pooled_data():
    pooled = np.concatenate(ROWS).astype(np.float64)
    totals = add_up(MOMENTS, packets(ROWS))
    assert totals.upload_bytes == sum(map(len, packets(ROWS)))
    assert not totals.dropped
    mean, spread = moments_from(totals.values)
    np.testing.assert_allclose(mean, pooled.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(spread, pooled.std(axis=0), rtol=1e-7)


def test_the_order_of_packets_changes_no_bit_and_a_damaged_one_is_counted():
    sent = packets(ROWS)
    forward, backward = (add_up(MOMENTS, order).values for order in (sent, sent[::-1]))
    assert all(np.array_equal(forward[name], backward[name]) for name in forward)
    damaged = add_up(MOMENTS, [*sent, sent[0][:-1]])
    assert damaged.dropped == {"checksum": 1}
    assert all(np.array_equal(forward[name], damaged.values[name]) for name in forward)


def test_counts_over_candidates_are_those_of_the_pooled_data():
    held = [RNG.integers(0, 50, n) for n in (0, 7, 900)]
    question = counts_question(60)
    totals = add_up(question, (pack_sums(question, counts_of(numbers, 60)) for numbers in held))
    assert np.array_equal(totals.values[COUNTS], np.bincount(np.concatenate(held), minlength=61))


LOW, HIGH = np.array([-3.0, 4.99, -7e4, 0.0]), np.array([3.0, 5.01, 0.0, 14.0])


@pytest.mark.parametrize("rows", [ROWS[0], np.full((2, 4), 1e9, np.float32), np.full((1, 4), -1e9, np.float32)])
def test_what_a_device_sends_under_privacy_is_no_longer_than_1(rows: np.ndarray):
    sent = bounded_moments_of(rows, LOW, HIGH)
    assert np.linalg.norm(np.concatenate([sent[name] for name in (EXAMPLES, SUMS, SQUARES)])) <= 1 + 1e-12


def test_a_device_that_sends_more_is_clipped_to_1():
    honest = pack_sums(MOMENTS, bounded_moments_of(ROWS[0], LOW, HIGH))
    huge = pack_sums(MOMENTS, {EXAMPLES: np.array([1e20]), SUMS: np.full(4, -1e20), SQUARES: np.full(4, 1e20)})
    spec = {part.name: TensorSpec((part.length,)) for part in MOMENTS}
    alone, beside = ClippedSum(spec, 1.0), ClippedSum(spec, 1.0)
    for total, sent in ((alone, [honest]), (beside, [honest, huge])):
        for packet in sent:
            total.add({name: v.astype(np.float32) for name, v in unpack_sums(MOMENTS, packet).items()}, 1)
    moved = np.concatenate([beside.total[name] - alone.total[name] for name in spec]) / UNIT
    assert 0.999 < np.linalg.norm(moved) <= 1
    one, two = (release_sum(total, 0.5, bytes(32)) for total in (alone, beside))
    assert not np.array_equal(one[SUMS] - two[SUMS], (alone.total[SUMS] - beside.total[SUMS]) / UNIT), "other noise"


def test_noise_is_as_large_as_is_claimed_and_repeats_with_its_key():
    question = moments_question(400)
    packet = pack_sums(question, bounded_moments_of(np.zeros((1, 400), np.float32), -np.ones(400), np.ones(400)))
    clean, noised, again, other = (
        add_up_private(question, [packet], noise_multiplier=z, key=key).values[SUMS]
        for z, key in ((0.3, bytes(32)), (2.0, bytes(32)), (2.0, bytes(32)), (2.0, bytes([1] * 32)))
    )
    assert np.array_equal(noised, again)
    assert not np.array_equal(noised, other)
    assert 1.8 < noised.std() < 2.2
    assert 0.27 < clean.std() < 0.33


def test_means_and_spreads_come_back_from_enough_devices():
    rows = [
        (RNG.standard_normal((30, 4)) * [0.5, 0.003, 9e3, 2] + [1, 5, -3e4, 7]).astype(np.float32) for _ in range(2000)
    ]
    sent = [pack_sums(MOMENTS, bounded_moments_of(part, LOW, HIGH)) for part in rows]
    totals = add_up_private(MOMENTS, sent, noise_multiplier=1.0, key=bytes(32))
    noise = noise_of_means(1.0, 4, len(rows))
    mean, spread = moments_from_bounded(totals.values, LOW, HIGH, noise)
    pooled = np.concatenate(rows).astype(np.float64)
    half = (HIGH - LOW) / 2
    assert (np.abs(mean - pooled.mean(axis=0)) < 6 * noise * half).all()
    np.testing.assert_allclose(spread, pooled.std(axis=0), rtol=0.1)
