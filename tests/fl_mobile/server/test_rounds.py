"""A round as the server sees it: good packets add up, bad ones are counted, order is nothing."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile import wire
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.answer import Terms, answer
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, DivergedError
from fl_mobile.records import FitPlan, ServerState, Update
from fl_mobile.seeds import rng_for
from fl_mobile.server.admission import Admission
from fl_mobile.tensors import TensorSpec, clip_by_norm, global_norm
from tests.fl_mobile.one_round import ServerRound
from tests.fl_mobile.samples import SPEC, laplace, philox

CODEC = parse_codec("none")
LAYOUT = wire.Layout(SPEC, CODEC)


def start(round_num=0, spec=SPEC):
    return ServerState(round_num, laplace(spec, key=99), spec)


def packet(key=0, *, codec=CODEC, round_num=0, examples=10, loss=0.5, spec=SPEC, scale=1.0):
    delta = {p: v * np.float32(scale) for p, v in laplace(spec, key=key).items()}
    header = wire.Header(wire.UPDATE, round_num, round_num, examples, loss)
    return wire.pack(header, delta, spec, codec, rng_for(0, round_num, key, "codec"))


def round_of(state=None, *, codec=CODEC, algorithm="fedavg", rule="mean", **rules):
    made = ALGORITHMS[algorithm].build()
    return ServerRound(state or start(), algorithm=made, codec=codec, admission=Admission(**rules), rule=rule)


def run(packets, state=None, **how):
    return round_of(state, **how).play(packets)


def resealed(data, offset, new):
    body = data[:offset] + new + data[offset + len(new) : -4]
    return body + struct.pack("<I", zlib.crc32(body))


def test_the_mean_is_weighted_by_examples():
    after, report = run([packet(1, examples=30, loss=1.0), packet(2, examples=10, loss=2.0)])
    for path, w in start().weights.items():
        expected = w + (30 * laplace(key=1)[path] + 10 * laplace(key=2)[path]) / 40
        assert np.allclose(after.weights[path], expected, rtol=1e-6, atol=1e-6)
    assert (report.round_num, report.accepted, report.num_examples, report.dropped) == (0, 2, 40, {})
    assert report.loss == pytest.approx(1.25)
    assert report.upload_bytes == (len(packet(1)), len(packet(2)))
    assert after.round_num == 1


def test_uniform_weighting_counts_clients():
    after, report = run([packet(1, examples=900), packet(2, examples=1)], weighting="uniform")
    assert report.num_examples == 901
    path = "dense/kernel"
    expected = start().weights[path] + (laplace(key=1)[path] + laplace(key=2)[path]) / 2
    assert np.allclose(after.weights[path], expected, atol=1e-6)


def test_a_claim_of_examples_is_clamped():
    liar, honest = packet(1, examples=2**31), packet(2, examples=100)
    after, report = run([liar, honest], max_examples=100)
    assert report.num_examples == 200
    expected = start().weights["scale"] + (laplace(key=1)["scale"] + laplace(key=2)["scale"]) / 2
    assert np.allclose(after.weights["scale"], expected, atol=1e-6)


def bad_packets():
    good = packet(5)
    other = {**SPEC, "scale": TensorSpec((1,))}
    huge = laplace(key=1)
    huge["dense/kernel"] = np.full_like(huge["dense/kernel"], 1e30)
    return {
        "truncated": good[:20],
        "magic": b"PK\x03\x04" + good[4:],
        "version": resealed(good, 4, b"\x09"),
        "checksum": good[:-1] + bytes([good[-1] ^ 255]),
        "fingerprint": packet(5, spec=other),
        "codec": packet(5, codec=parse_codec("q8")),
        "kind": wire.pack(wire.Header(wire.MODEL, 0, 0, 5), laplace(), SPEC, CODEC, philox(0)),
        "round": packet(5, round_num=1),
        "examples": packet(5, examples=0),
        "value": resealed(good, 40, struct.pack("<f", math.nan)),
        "trailing": resealed(good + b"1234", 0, b""),
        "magnitude": LAYOUT.pack(wire.Header(wire.UPDATE, 0, 0, 5), huge, philox(0)),
    }


@pytest.mark.parametrize("reason", bad_packets())
def test_a_bad_packet_is_counted_by_its_reason_and_ends_nothing(reason):
    bad = bad_packets()[reason]
    alone, lonely = run([bad, bad])
    assert (lonely.accepted, lonely.dropped, lonely.num_examples) == (0, {reason: 2}, 0)
    assert math.isnan(lonely.loss)
    assert alone.round_num == 1
    assert all(np.array_equal(alone.weights[p], start().weights[p]) for p in SPEC)
    mixed, report = run([bad, packet(1), bad, packet(2)])
    clean, _ = run([packet(1), packet(2)])
    assert (report.accepted, report.dropped) == (2, {reason: 2})
    assert all(mixed.weights[p].tobytes() == clean.weights[p].tobytes() for p in SPEC)


def test_a_stale_base_is_a_wrong_round():
    stale = wire.pack(wire.Header(wire.UPDATE, 4, 3, 5), laplace(), SPEC, CODEC, philox(0))
    assert run([stale], start(round_num=4))[1].dropped == {"round": 1}


@pytest.mark.parametrize("text", ["none", "q8", "q1", "flat+eden:1", "flat+eden:0.1", "terngrad"])
def test_no_update_counts_for_more_than_the_clip_norm(text):
    """Unbiased codecs inflate norms; the bound has to hold after decoding."""
    codec = parse_codec(text)
    for scale in (0.01, 1.0, 100.0):
        after, _ = run([packet(3, codec=codec, scale=scale)], codec=codec, clip_norm=2.5)
        moved = {p: after.weights[p].astype(np.float64) - start().weights[p] for p in SPEC}
        assert global_norm(moved) <= 2.5 * (1 + 1e-4)
        if scale > 0.1:
            assert global_norm(moved) == pytest.approx(2.5, rel=1e-3)


def test_clip_never_lands_above_its_bound():
    for key in range(20):
        for norm in (1e-3, 0.7, 30.0):
            assert global_norm(clip_by_norm(laplace(key=key), norm)) <= norm
    small = laplace()
    assert clip_by_norm(small, 1e9) is small


def test_a_diverged_update_is_named():
    delta = laplace()
    delta["head/bias"] = delta["head/bias"].copy()
    delta["head/bias"][7] = np.nan
    with pytest.raises(DivergedError, match=r"'head/bias': 1 of 257 .*in the update to be sent"):
        answer(Terms(LAYOUT, 6), Update(delta, 5, {"loss": 0.5}), 0)
    with pytest.raises(DivergedError, match="loss nan"):
        answer(Terms(LAYOUT, 6), Update(laplace(), 5, {"loss": math.nan}), 0)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(9)), algorithm=st.sampled_from(sorted(ALGORITHMS)))
def test_order_of_arrival_changes_neither_state_nor_report(order, algorithm):
    codec = parse_codec("q4")
    packets = [packet(k, codec=codec, examples=k + 1, loss=0.1 * k) for k in range(6)]
    packets += [packets[0][:-2], packet(7), packet(8, codec=codec, round_num=3)]
    first = ALGORITHMS[algorithm].build().init(laplace(key=99), SPEC)
    a, report_a = run(packets, first, codec=codec, algorithm=algorithm)
    b, report_b = run([packets[i] for i in order], first, codec=codec, algorithm=algorithm)
    assert all(a.weights[p].tobytes() == b.weights[p].tobytes() for p in SPEC)
    assert all(np.array_equal(a.slots[s][p], b.slots[s][p]) for s in a.slots for p in a.slots[s])
    assert sorted(report_a.upload_bytes) == sorted(report_b.upload_bytes)
    for field in ("round_num", "accepted", "dropped", "num_examples", "loss"):
        assert getattr(report_a, field) == getattr(report_b, field)


@settings(max_examples=25, deadline=None)
@given(arrived=st.sets(st.integers(0, 8)), algorithm=st.sampled_from(["fedavg", "fednova"]))
def test_packets_that_are_taken_out_again_leave_no_trace(arrived, algorithm):
    codec = parse_codec("q4")
    packets = [packet(k, codec=codec, examples=7 * k + 1, loss=0.1 * k) for k in range(5)]
    packets += [packets[0][:-2], packet(7), packet(8, codec=codec, loss=math.nan), packets[1]]
    first = ALGORITHMS[algorithm].build().init(laplace(key=99), SPEC)
    made = round_of(first, codec=codec, algorithm=algorithm, max_staleness=1)
    folded = made.folding(packets)
    assert [r.accepted for r in folded.receipts] == [True] * 5 + [False, False, True, True]
    folded.merge(made.folding([p for i, p in enumerate(packets) if i not in arrived], sign=-1))
    a, report_a = made.finish(folded)
    b, report_b = made.play([packets[i] for i in arrived])
    assert all(a.weights[p].tobytes() == b.weights[p].tobytes() for p in SPEC)
    assert repr(report_a) == repr(report_b)  # repr, because a loss may be NaN


def test_losses_that_are_not_finite_stay_out_of_the_mean():
    _, report = run([packet(1, loss=math.nan), packet(2, loss=1e300), packet(3, loss=2.0)])
    assert report.loss == 2.0
    assert report.accepted == 3


def test_packets_are_folded_one_at_a_time():
    """The generator's next packet is made only after the one before was added."""
    alive = []

    def stream():
        for key in range(5):
            alive.append(key)
            yield packet(key)

    _, report = run(stream())
    assert report.accepted == len(alive) == 5


def test_an_empty_round_changes_only_its_number():
    after, report = run([])
    assert report.accepted == 0
    assert after.round_num == 1
    assert all(np.array_equal(after.weights[p], start().weights[p]) for p in SPEC)


@pytest.mark.parametrize("wrong", [{"weighting": "loss"}, {"max_examples": 0}, {"clip_norm": -1.0}])
def test_admission_rules_are_checked(wrong):
    with pytest.raises(ConfigError):
        Admission(**wrong)


@pytest.mark.parametrize("max_staleness", [0, 20])
def test_examples_of_a_report_are_examples_whatever_an_update_may_be_late(max_staleness):
    _, report = run([packet(1, examples=30), packet(2, examples=10), packet(3)[:-1]], max_staleness=max_staleness)
    assert report.num_examples == 40


def test_a_stale_packet_costs_its_header_and_no_decoding():
    old = packet(1, round_num=3)
    nonsense = resealed(old, 40, struct.pack("<f", math.nan))
    assert run([nonsense], start(round_num=9), max_staleness=2)[1].dropped == {"round": 1}
    assert run([nonsense], start(round_num=4), max_staleness=2)[1].dropped == {"value": 1}


def test_every_packet_gets_a_receipt_in_its_place():
    folded = round_of(max_examples=20, codec=CODEC).folding([packet(1), b"", packet(2, examples=99), packet(3)[:-2]])
    assert [r.reason for r in folded.receipts] == ["", "truncated", "", "checksum"]
    assert [r.weight for r in folded.receipts] == [10, 0, 20, 0]
    steps = FitPlan().local_steps
    assert [r.local_steps for r in folded.receipts] == [steps(10), 0.0, steps(20), 0.0]
