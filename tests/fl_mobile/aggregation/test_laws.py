"""Laws of every aggregation rule: order cannot matter, sums are exact, what does not fit is refused whole."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fl_mobile.aggregation import AGGREGATORS, WeightedMean
from fl_mobile.aggregation.exact_mean import FRACTION_BITS
from fl_mobile.errors import WireError
from fl_mobile.tensors import TensorSpec

SPEC = {"a": TensorSpec((2, 3)), "b": TensorSpec(()), "none": TensorSpec((0,))}
SIZE = 7
"""Values in one update of `SPEC`."""

values = st.floats(-1e4, 1e4, width=32)
updates = st.lists(
    st.tuples(st.lists(values, min_size=SIZE, max_size=SIZE), st.integers(1, 10_000)), min_size=1, max_size=12
)
every_rule = pytest.mark.parametrize("rule", AGGREGATORS)
sums = pytest.mark.parametrize("rule", [name for name, row in AGGREGATORS.items() if row.subtractable])
others = pytest.mark.parametrize("rule", [name for name, row in AGGREGATORS.items() if not row.mean])
unscaled = pytest.mark.parametrize("rule", [name for name, row in AGGREGATORS.items() if not row.reference])


def tensors(flat):
    flat = np.array(flat, np.float32)
    return {"a": flat[:6].reshape(2, 3), "b": flat[6].reshape(()), "none": np.zeros(0, np.float32)}


REFERENCE = np.array([3.0, 1.0, 2.0, 0.5, 4.0, 1.5, 2.5], np.float32)
"""The server's own update, for rules that need one."""


def make(rule):
    return AGGREGATORS[rule].beside(tensors(REFERENCE)).make(SPEC)


def total(rule, rows):
    aggregator = make(rule)
    for flat, weight in rows:
        aggregator.add(tensors(flat), weight)
    return aggregator


def flat_result(aggregator):
    result = aggregator.result()
    assert {p: v.shape for p, v in result.items()} == {p: t.shape for p, t in SPEC.items()}
    assert all(v.dtype == np.float32 for v in result.values())
    return np.concatenate([v.ravel() for v in result.values()])


@every_rule
@given(rows=updates, seed=st.integers(0, 2**32))
def test_arrival_order_cannot_change_a_bit(rule, rows, seed):
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    assert flat_result(total(rule, rows)).tobytes() == flat_result(total(rule, shuffled)).tobytes()


@sums
@given(rows=updates, kept=st.integers(0, 11))
def test_what_is_taken_out_again_leaves_no_trace(rule, rows, kept):
    aggregator, rest = total(rule, rows), rows[:kept]
    for flat, weight in rows[kept:]:
        aggregator.add(tensors(flat), -weight)
    assert aggregator.weight == sum(w for _, w in rest)
    if not rest:
        assert aggregator.result() is None
    else:
        assert flat_result(aggregator).tobytes() == flat_result(total(rule, rest)).tobytes()


@every_rule
@given(rows=updates, cut=st.integers(0, 11))
def test_parts_merge_to_the_whole(rule, rows, cut):
    parts = total(rule, rows[:cut])
    parts.merge(total(rule, rows[cut:]))
    assert flat_result(parts).tobytes() == flat_result(total(rule, rows)).tobytes()


@given(rows=updates)
def test_weighted_mean_equals_exact_fractions(rows):
    """The slow obvious version: exact rational arithmetic on the float32 values."""
    got = flat_result(total("mean", rows))
    weight = sum(w for _, w in rows)
    for i in range(SIZE):
        exact = sum((Fraction(float(np.float32(flat[i]))) * w for flat, w in rows), Fraction(0)) / weight
        # each term is rounded once to 2⁻³⁴, the result once to float32
        allowed = len(rows) * Fraction(1, 2 ** (FRACTION_BITS + 1)) / weight + abs(exact) * Fraction(1, 2**24)
        assert abs(Fraction(float(got[i])) - exact) <= allowed + Fraction(1, 2**149)


@unscaled
@given(rows=updates)
def test_equal_updates_have_themselves_as_their_mean(rule, rows):
    same = [(rows[0][0], w) for _, w in rows]
    expected = np.array(rows[0][0], np.float32)
    assert np.allclose(flat_result(total(rule, same)), expected, rtol=2.0**-23, atol=2.0**-33)


@every_rule
def test_nothing_added_has_no_mean(rule):
    aggregator = make(rule)
    assert aggregator.result() is None
    assert aggregator.weight == 0


@sums
@pytest.mark.parametrize(
    ("bad", "weight"), [(3.4e38, 1), (1e6, 10_000), (-1e9, 1), (np.nan, 1), (np.inf, 1), (-np.inf, 5)]
)
@pytest.mark.parametrize("at", [0, 5, 6])
def test_what_does_not_fit_is_refused_and_leaves_the_sum_alone(rule, bad, weight, at):
    good = [(list(range(SIZE)), 3), ([0.5] * SIZE, 2)]
    aggregator, flat = total(rule, good), np.zeros(SIZE, np.float32)
    flat[at] = bad
    before = (flat_result(aggregator).tobytes(), aggregator.weight)
    with pytest.raises(WireError) as caught:
        aggregator.add(tensors(flat), weight)
    assert caught.value.reason == "magnitude"
    assert (flat_result(aggregator).tobytes(), aggregator.weight) == before
    aggregator.add(tensors([1.0] * SIZE), 1)
    assert aggregator.weight == before[1] + 1


@unscaled
@pytest.mark.parametrize("value", [5_000.0, -13_000.0])
def test_many_large_updates_do_not_wrap_around(rule, value):
    """Five of these fill int64; one liar must not be able to use up the room of all who come after."""
    aggregator = total(rule, [([value] * SIZE, 10_000)] * 500)
    assert aggregator.weight == (5_000_000 if AGGREGATORS[rule].mean else 500)
    assert np.array_equal(flat_result(aggregator), np.full(SIZE, value, np.float32))


def sorted_rows(rows):
    """Two equal scores are told apart by what the updates hold, so that the order they came in is not."""
    return sorted(rows, key=lambda row: (np.array(row, np.float32) + np.float32(0)).tobytes())


def trimmed(rows):
    rising, cut = np.sort(rows, axis=0), math.ceil(len(rows) / 10)
    cut = min(cut, (len(rows) - 1) // 2)
    return rising[cut : len(rows) - cut].mean(axis=0)


def bounded(rows):
    bound = np.median([np.linalg.norm(row) for row in rows])
    return np.mean([row * min(1, bound / max(np.linalg.norm(row), 1e-300)) for row in rows], axis=0)


def krum_scores(rows, kept):
    """Blanchard et al. 2017, section 4: the sum over the closest n − f − 2, for every update."""
    return [sum(sorted(((row - other) ** 2).sum() for other in rows)[1 : kept + 1]) for row in rows]


def krum_kept(n):
    liars = min(max(1, math.ceil(round(0.3 * n, 9))), max(0, (n - 3) // 2))
    return max(1, n - liars - 2)


def multi_krum(rows):
    kept = krum_kept(len(rows))
    scores = krum_scores(rows, kept)
    chosen = sorted(range(len(rows)), key=lambda i: scores[i])[:kept]
    return np.mean([rows[i] for i in chosen], axis=0)


def centered(rows):
    """Karimireddy et al. 2021, algorithm 2."""
    v = np.median(rows, axis=0)
    for _ in range(3):
        tau = np.median([np.linalg.norm(row - v) for row in rows])
        v = v + sum((row - v) * min(1, tau / max(np.linalg.norm(row - v), 1e-300)) for row in rows) / len(rows)
    return v


def fltrust(rows):
    """Cao et al. 2021, algorithm 2."""
    own, above, below = REFERENCE.astype(np.float64), np.zeros(SIZE), 0.0
    for row in rows:
        norm = np.linalg.norm(row)
        trust = max(0.0, row @ own / norm / np.linalg.norm(own)) if norm else 0.0
        above, below = above + trust * row * np.linalg.norm(own) / (norm or 1), below + trust
    return above / below if below else above


ORACLES = {
    "median": lambda rows: np.median(rows, axis=0),
    "trimmed-mean": trimmed,
    "norm-bound": bounded,
    "multi-krum": multi_krum,
    "centered-clipping": centered,
    "fltrust": fltrust,
}
"""Rule → the slow version, of updates ``float64[n, m]``."""


def undecided(rule, rows):
    """Two scores so close that rounding decides between them."""
    if rule != "multi-krum":
        return False
    kept = krum_kept(len(rows))
    scores = sorted(krum_scores(rows, kept))
    return kept < len(rows) and scores[kept] - scores[kept - 1] <= 1e-9 * scores[kept]


@others
@given(rows=updates)
def test_rules_over_single_updates_equal_the_paper_and_give_every_update_the_same_say(rule, rows):
    assert rule in ORACLES, f"write the slow version of '{rule}' into ORACLES"
    flat = np.array(sorted_rows([row for row, _ in rows]), np.float32).astype(np.float64)
    assume(not undecided(rule, flat))
    scale = np.abs(flat).max()
    assert np.allclose(flat_result(total(rule, rows)), ORACLES[rule](flat), rtol=1e-5, atol=1e-6 * scale + 1e-30)
    assert total(rule, rows).weight == len(rows)


@others
def test_a_minority_of_liars_cannot_move_it_beyond_the_honest(rule):
    honest = [([float(i)] * SIZE, 1) for i in range(18)]
    for lie in (1e30, -1e30):
        found = flat_result(total(rule, [*honest, ([lie] * SIZE, 10_000), ([lie] * SIZE, 10_000)]))
        assert (found >= 0).all()
        assert (found <= 17).all()
    assert abs(flat_result(total("mean", [*honest, ([1000.0] * SIZE, 10_000)]))[0]) > 900


@others
def test_nothing_can_be_taken_out_of_single_updates(rule):
    with pytest.raises(ValueError, match="out again"):
        make(rule).add(tensors(range(SIZE)), -1)


def test_memory_does_not_grow_with_the_number_of_updates():
    aggregator = WeightedMean({"w": TensorSpec((1000,))})
    update = {"w": np.ones(1000, np.float32)}
    sizes = set()
    for _ in range(50):
        aggregator.add(update, 1)
        sizes.add(sum(v.nbytes for v in vars(aggregator)["_sum"].values()))
    assert sizes == {8000}


def test_adding_does_not_keep_or_change_the_caller_arrays():
    aggregator, update = WeightedMean(SPEC), tensors(range(SIZE))
    aggregator.add(update, 2)
    update["a"] += 100
    assert np.array_equal(flat_result(aggregator), np.arange(SIZE, dtype=np.float32))
