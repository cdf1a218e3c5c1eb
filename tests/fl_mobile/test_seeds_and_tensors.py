"""Keyed randomness, and the small functions every packet goes through."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.errors import DivergedError, SpecMismatch
from fl_mobile.seeds import hashes, rng_for, seed_for, splitmix64, uniform, uniforms
from fl_mobile.tensors import TensorSpec, check_finite, clip_by_norm, fp32_bytes, global_norm, weights_hash
from tests.fl_mobile.samples import SPEC, laplace, philox

GOLDEN_RAW = ["0x1c1a63d6984874a4", "0x5917fe5f595f0367"]
GOLDEN_UNIFORM = ["0x1.3090e80000000p-1", "0x1.c1a6300000000p-4", "0x1.657c0c0000000p-2"]


def test_seeds_and_raw_bits_are_pinned_for_good():
    assert seed_for(0, 3, 17, "train") == 0x130EBBEA437572B3
    assert [hex(b) for b in rng_for(7, 0, "codec").bit_generator.random_raw(2)] == GOLDEN_RAW
    assert [float(u).hex() for u in uniform(rng_for(7, 0, "codec"), 3)] == GOLDEN_UNIFORM


def test_uniform_is_24_bits_of_each_half_low_half_first():
    raw = rng_for(1).bit_generator.random_raw(4)
    slow = [((int(r) >> shift) & 0xFFFFFFFF) >> 8 for r in raw for shift in (0, 32)]
    for count in (0, 1, 2, 7, 8):
        assert uniform(rng_for(1), count).tolist() == [s / 2**24 for s in slow[:count]]
    assert uniform(rng_for(1), 7).dtype == np.float32


def test_uniform_fills_its_half_open_interval_evenly():
    draws = uniform(rng_for(5, "even"), 200_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 50, (0, 1))[0]
    assert np.sum((counts - 4000) ** 2 / 4000) < 49 + 6 * math.sqrt(98)  # chi-square, 49 degrees of freedom


def test_streams_of_different_purposes_are_independent():
    keys = [(0,), (1,), (0, 0), (0, "0"), (0, 0, 0), (0, 1, "codec"), (0, 1, "train"), (0, 11, "codec"), (0, 1, 1)]
    streams = [uniform(rng_for(*key), 20_000) for key in keys]
    for a, b in itertools.combinations(streams, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 6 / math.sqrt(20_000)


def test_splitmix64_gives_the_published_stream():
    # First outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) with state 1234567.
    state = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert splitmix64(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_keyed_draw_does_not_depend_on_what_else_is_asked():
    together = uniforms(7, 3, "offline", index=np.arange(1000))
    assert uniforms(7, 3, "offline", index=np.array([17, 999]))[::-1].tolist() == together[[999, 17]].tolist()
    assert float(uniforms(7, 3, "offline", index=np.array(17))) == together[17]
    assert (
        hashes(7, 3, "offline", index=np.arange(1000)).tolist()
        != hashes(7, 4, "offline", index=np.arange(1000)).tolist()
    )


def test_keyed_draws_are_uniform_and_independent_of_their_neighbours():
    draws = uniforms(0, "any", index=np.arange(200_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 100, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 150  # χ² with 99 degrees of freedom, p ≈ 0.0007
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01


@given(
    st.lists(st.one_of(st.integers(), st.text()), max_size=3), st.lists(st.one_of(st.integers(), st.text()), max_size=3)
)
def test_seeds_differ_where_keys_differ(a, b):
    if any("/" in str(k) for k in (*a, *b)):
        return  # a key that itself looks like several keys is not one we make
    assert (seed_for(0, *a) == seed_for(0, *b)) == ([*map(repr, a)] == [*map(repr, b)])


def test_one_stream_does_not_move_another():
    first = rng_for(0, 1, "a")
    first.random(100)
    assert rng_for(0, 1, "b").random() == rng_for(0, 1, "b").random()
    assert uniform(rng_for(0, 1, "a"), 4).tolist() == uniform(rng_for(0, 1, "a"), 4).tolist()


def test_weights_hash_sees_every_bit_shape_and_path():
    base = laplace()
    hashes = {weights_hash(base)}
    for path in ("conv/kernel", "scale"):
        nudged = {**base, path: base[path].copy()}
        nudged[path].flat[0] = np.nextafter(nudged[path].flat[0], np.float32(9))
        hashes.add(weights_hash(nudged))
    hashes.add(weights_hash({**base, "dense/kernel": base["dense/kernel"].T}))
    hashes.add(weights_hash({("x" if p == "scale" else p): v for p, v in base.items()}))
    hashes.add(weights_hash({**base, "none": np.zeros((5, 0), np.float32)}))
    assert len(hashes) == 6
    assert weights_hash(laplace()) == weights_hash({p: np.array(v, order="F") for p, v in base.items()})


def test_sizes_are_counted_in_bytes():
    assert fp32_bytes(SPEC) == 4 * (576 + 16 + 400 + 1 + 0 + 943 + 257)
    assert (TensorSpec(()).size, TensorSpec((0, 5)).size, TensorSpec((2, 3)).size) == (1, 0, 6)
    with pytest.raises(SpecMismatch):
        TensorSpec((2, -1))


def test_finite_check_is_not_fooled_by_large_values():
    check_finite({"w": np.full(100, 3e38, np.float32)}, "here")
    with pytest.raises(DivergedError, match="'b': 2 of 4 values"):
        check_finite({"a": np.ones(3, np.float32), "b": np.array([1, np.nan, 3e38, -np.inf], np.float32)}, "here")


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_clipping_keeps_direction_and_bound(values, norm):
    x = {"w": np.array(values, np.float32)}
    clipped = clip_by_norm(x, norm)
    assert global_norm(clipped) <= norm
    assert global_norm(x) > norm or clipped is x
    if global_norm(x) > norm:
        exact = x["w"].astype(np.float64) * (norm / global_norm(x))
        assert np.allclose(clipped["w"], exact, rtol=1e-5, atol=1e-6 * norm)


def test_norm_is_accumulated_in_float64():
    assert global_norm({"w": np.full(2**22, 1e-3, np.float32)}) == pytest.approx(1e-3 * 2**11, rel=1e-7)
    assert global_norm({"w": philox(0).normal(size=0).astype(np.float32)}) == 0.0
