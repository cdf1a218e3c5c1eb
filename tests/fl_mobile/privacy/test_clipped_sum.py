"""One client, any bytes: what it can do to a sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import WireError
from fl_mobile.privacy import ClippedSum, PrivacyRules
from fl_mobile.privacy.clipped_sum import UNIT
from fl_mobile.records import FitPlan
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.tensors import Tensors, TensorSpec
from tests.fl_mobile.samples import philox

SPEC = {"w": TensorSpec((5, 7)), "b": TensorSpec(()), "none": TensorSpec((0, 2)), "c": TensorSpec((3,))}
NORM, COHORT = 0.7, 4
LAYOUT = wire.Layout(SPEC, parse_codec("none"))
FOLDING = Folding(
    round_num=3,
    layout=LAYOUT,
    rule=PrivacyRules(NORM, 1.0, COHORT).rule(NORM),
    admission=Admission(weighting="uniform"),
    plan=FitPlan(),
)
values = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 3.4e38, -3.4e38, 1e-45, 1e-30, 0.7, NORM]),
)


def tensors(flat: np.ndarray) -> Tensors:
    return {"w": flat[:35].reshape(5, 7), "b": flat[35], "none": np.zeros((0, 2), np.float32), "c": flat[36:39]} | {
        "b": np.asarray(flat[35], np.float32)
    }


def packed(delta: Tensors, examples: int = 1) -> bytes:
    return LAYOUT.pack(wire.Header(wire.UPDATE, 3, 3, examples), delta, philox(1))


def flat(total: ClippedSum) -> list[int]:
    return [int(v) for path in SPEC for v in total.total[path].reshape(-1)]


@settings(deadline=None, max_examples=60)
@given(hostile=arrays(np.float32, 39, elements=values), examples=st.integers(0, 2**32 - 1))
def test_one_client_any_bytes_moves_the_sum_by_one_norm_at_most(hostile: np.ndarray, examples: int) -> None:
    others = [packed(tensors(philox(i).normal(0, 0.3, 39).astype(np.float32))) for i in range(2)]
    without = FOLDING(others)
    with_it = FOLDING([others[0], packed(tensors(hostile), examples), others[1]])
    moved = [a - b for a, b in zip(flat(with_it.total), flat(without.total), strict=True)]
    assert math.isqrt(sum(v * v for v in moved)) <= UNIT, "as whole numbers, nothing is rounded here"
    in_the_mean = math.sqrt(sum(v * v for v in moved)) * (NORM / UNIT / COHORT)
    assert in_the_mean <= NORM / COHORT * (1 + 1e-6)


@settings(deadline=None, max_examples=60)
@given(junk=st.binary(max_size=300))
def test_bytes_that_are_no_packet_move_nothing(junk: bytes) -> None:
    folded = FOLDING([junk])
    assert not any(flat(folded.total))
    assert (folded.accepted, folded.dropped.total()) == (0, 1)


@settings(deadline=None, max_examples=60)
@given(given=arrays(np.float32, 39, elements=values))
def test_the_sum_is_that_of_whole_number_arithmetic(given: np.ndarray) -> None:
    total = ClippedSum(SPEC, NORM)
    total.add(tensors(given), 1)
    exact = [float(v) for v in given]
    norm = math.sqrt(math.fsum(v * v for v in exact))
    scale = UNIT / NORM if norm <= NORM else UNIT / norm
    assert all(abs(found - v * scale) < 1.001 for found, v in zip(flat(total), exact, strict=True))
    assert total.within == (1 if norm <= NORM else -1)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_order_grouping_and_taking_out_change_no_bit(order: list[int], cut: int) -> None:
    updates = [tensors((philox(i).normal(0, 2.0 ** (i - 3), 39)).astype(np.float32)) for i in range(6)]
    whole, left, right = (ClippedSum(SPEC, NORM) for _ in range(3))
    for update in updates:
        whole.add(update, 1)
    for place, i in enumerate(order):
        (left if place < cut else right).add(updates[i], 1)
        left.add(updates[0], 1)
        right.add(updates[0], -1)
    left.merge(right)
    assert (flat(left), left.within, left.weight) == (flat(whole), whole.within, whole.weight)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_gets_in(bad: float) -> None:
    update, total = tensors(np.ones(39, np.float32)), ClippedSum(SPEC, NORM)
    update["c"] = np.array([0, bad, 0], np.float32)
    with pytest.raises(WireError, match="NaN"):
        total.add(update, 1)
    assert not any(flat(total))
    assert total.weight == 0


def test_a_claim_of_examples_is_not_a_weight() -> None:
    update = tensors(np.full(39, 0.01, np.float32))
    one, many = (FOLDING([packed(update, examples)]) for examples in (1, 2**32 - 1))
    assert flat(one.total) == flat(many.total)
    assert one.receipts[0].weight == many.receipts[0].weight == 1
    with pytest.raises(ValueError, match="counts once"):
        ClippedSum(SPEC, NORM).add(update, 2)


def test_nobody_reads_the_sum_without_its_noise() -> None:
    with pytest.raises(ValueError, match="release"):
        ClippedSum(SPEC, NORM).result()


def test_a_zero_update_is_an_update() -> None:
    folded = FOLDING([packed(tensors(np.zeros(39, np.float32)))])
    assert (folded.accepted, folded.total.within) == (1, 1)  # type: ignore[attr-defined]
