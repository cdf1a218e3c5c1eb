"""Packets that are made, read or folded with one call are those that are made, read or folded one by one."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fl_mobile.server.fold as fold_module
from device_sim.engines import Task
from device_sim.rounds.clients import Clients
from fl_mobile import wire
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.client.answer import Own, Terms, answer, answer_each
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.base import of_client
from fl_mobile.errors import DivergedError, WireError
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import seed_for
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.tensors import Tensors, TensorSpec, cut
from fl_mobile.wire.outcomes import attempt
from tests.fl_mobile.codecs.test_ecsq_hostile import mutate
from tests.fl_mobile.samples import ALL, SPEC, header, laplace, philox

SMALL = {"kernel": TensorSpec((90, 10)), "bias": TensorSpec((10,)), "none": TensorSpec((0,)), "scale": TensorSpec(())}
"""No side of it has room for a low-rank part, as in models that many clients train."""

ECSQ = (
    *("ecsq", "ecsq:step=0.2", "ecsq:step=0.0001", "ecsq:abs=0.01", "ecsq:step=40", "ecsq:examples=20"),
    *("ecsq:rank=0", "ecsq:rounding=rdo", "ecsq:abs=0.01,rounding=nearest"),
)


def updates_of(kinds: list[str], spec: dict[str, TensorSpec] = SMALL) -> list[Tensors]:
    """Updates of several kinds, each with numbers of its own."""
    out = []
    for key, kind in enumerate(kinds):
        scale = {"zeros": 0.0, "tiny": 1e-44, "huge": 1e36}.get(kind, 0.01)
        update = {path: value * np.float32(scale) for path, value in laplace(spec, key).items()}
        if kind == "one":
            update = {
                path: np.where(np.arange(value.size).reshape(value.shape) == 3, value, 0)
                for path, value in update.items()
            }
        if kind == "sided":
            update = {path: np.abs(value) for path, value in update.items()}
        out.append(update)
    return out


KINDS = st.lists(st.sampled_from(("usual", "zeros", "tiny", "huge", "one", "sided")), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(ECSQ), kinds=KINDS, first=st.integers(0, 2**60), low_rank=st.booleans())
def test_payloads_that_are_coded_together_are_those_coded_alone(text, kinds, first, low_rank):
    spec = SMALL | ({"dense": TensorSpec((40, 24))} if low_rank else {})
    codec, updates = parse_codec(text), updates_of(kinds, spec)
    keys, examples = [first + i for i in range(len(kinds))], [7 * i for i in range(len(kinds))]
    rows = np.stack([np.concatenate([value.ravel() for value in update.values()]) for update in updates])
    together = codec.encode_each(rows, spec, keys, examples)
    each = zip(updates, keys, examples, strict=True)
    assert together == [of_client(codec, own).encode(update, philox(key)) for update, key, own in each]
    decoded, faults = codec.decode_each([memoryview(payload) for payload in together], spec)
    assert not faults
    for payload, row in zip(together, decoded, strict=True):
        expected = codec.decode(memoryview(payload), spec)
        assert all(np.array_equal(value, expected[path]) for path, value in cut(row, spec).items())


def test_damaged_payloads_among_others_are_refused_for_the_same_reason_and_spoil_nothing():
    codec, rng = parse_codec("ecsq:step=2"), np.random.default_rng(0)
    honest = [codec.encode(update, philox(1)) for update in updates_of(["usual", "sided", "zeros", "one"])]
    payloads = [mutate(honest[i % 4], rng) if i % 3 else honest[i % 4] for i in range(900)] + [b"", b"\2", b"\7x"]
    rows, faults = codec.decode_each([memoryview(payload) for payload in payloads], SMALL)
    assert 100 < len(faults) < 603
    for number, payload in enumerate(payloads):
        expected = attempt(codec.decode, memoryview(payload), SMALL)
        if isinstance(expected, WireError):
            assert (faults[number].reason, str(faults[number])) == (expected.reason, str(expected))
        else:
            assert number not in faults
            assert all(np.array_equal(value, expected[path]) for path, value in cut(rows[number], SMALL).items())


@pytest.mark.parametrize("text", ALL)
def test_packets_of_every_codec(text):
    layout = wire.Layout(SPEC, parse_codec(text))
    updates = [laplace(key=key) for key in range(3)]
    headers = [header(num_examples=5 * key + 1, loss=key) for key in range(3)]
    made = layout.pack_each(headers, updates, [4, 5, 6])
    each = zip(headers, updates, (4, 5, 6), strict=True)
    assert made == [layout.pack(one, update, philox(key)) for one, update, key in each]
    short = made[0][:36] + struct.pack("<I", 0) + made[0][40:]  # a payload of no bytes, and bytes behind it
    packets = [made[0], short, made[1], made[2][:-9] + made[2][-4:], made[2]]
    read = layout.unpack_each(packets, [headers[i] for i in (0, 0, 1, 2, 2)])
    for packet, told, one in zip(packets, (0, 0, 1, 2, 2), read, strict=True):
        expected = attempt(layout.unpack, packet, headers[told])
        if isinstance(expected, WireError):
            assert (one.reason, str(one)) == (expected.reason, str(expected))
        else:
            assert one.header == expected.header
            assert list(one.tensors) == list(SPEC)
            assert all(np.array_equal(one.tensors[path], expected.tensors[path]) for path in SPEC)
    assert [isinstance(one, WireError) for one in read] == [False, True, False, True, False]
    assert layout.unpack_each([], []) == []


@pytest.mark.parametrize("text", ["ecsq", "q4"])
def test_a_fold_does_not_depend_on_how_many_packets_are_read_at_once(text, monkeypatch):
    layout = wire.Layout(SMALL, parse_codec(text))
    made = layout.pack_each([header(num_examples=n + 1, loss=n) for n in range(9)], updates_of(["usual"] * 9), range(9))
    huge = layout.pack(header(), updates_of(["huge"])[0], philox(0))
    packets = [*made[:4], made[4][:-1], huge, b"", *made[4:], layout.pack(header(8), updates_of(["one"])[0], philox(1))]
    folding = Folding(3, layout, AGGREGATORS["mean"], Admission(), FitPlan())
    folds = []
    for count in (1, 2, 5, 100):
        monkeypatch.setattr(fold_module, "at_once", lambda spec, count=count: count)
        folds.append(folding(packets))
    first = folds[0]
    assert first.dropped == {"checksum": 1, "magnitude": 1, "truncated": 1, "round": 1}
    assert first.accepted == 9
    for other in folds[1:]:
        assert all(np.array_equal(other.total.result()[path], first.total.result()[path]) for path in SMALL)
        assert vars(other) | {"total": None} == vars(first) | {"total": None}


def test_who_diverged_is_named_whoever_answers_beside_it():
    clients, updates = Clients(Terms(wire.Layout(SMALL, parse_codec("ecsq")), 6)), updates_of(["usual"] * 4)
    updates[2]["bias"][3] = math.nan
    tasks = [Task(10 + i, np.zeros(0), np.zeros(0), i) for i in range(4)]
    with pytest.raises(DivergedError, match=r"device 12, round 7: tensor 'bias': 1 of 10 values"):
        clients(tasks, [Update(update, 5, {"loss": 0.5}) for update in updates])


def test_clients_answer_together_as_each_does_alone():
    terms = Terms(wire.Layout(SMALL, parse_codec("ecsq:examples=20")), 6, residuals=True)
    updates = [Update(update, 3 * i + 1, {"loss": i}) for i, update in enumerate(updates_of(["usual"] * 5))]
    own = [
        Own(update, seed_for(i, "codec"), residual=laplace(SMALL, 50 + i) if i % 2 else None)
        for i, update in enumerate(updates)
    ]
    alone = [answer(terms, one.update, one.key, residual=one.residual) for one in own]
    assert [one.packet for one in answer_each(terms, own)] == [one.packet for one in alone]
