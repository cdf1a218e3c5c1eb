"""What crosses the wire as JSON is the same record on the other side."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import CODECS, PRESETS, STAGES, contracting, parse_codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.errors import WireError
from fl_mobile.protocol.forms import parse, whole
from fl_mobile.protocol.terms import (
    Blob,
    assignment_from_json,
    assignment_to_json,
    initial_bytes,
    receipt_from_json,
    receipt_to_json,
    terms_from_json,
    terms_to_json,
)
from fl_mobile.records import Assignment, FitPlan, Receipt
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire.pruning_mask import PruningPlan

SPEC = {"a/kernel": TensorSpec((2, 3)), "a/mean": TensorSpec((3,), False), "b/kernel": TensorSpec(())}
INITIAL = {path: np.full(t.shape, 0.1 + i, np.float32) for i, (path, t) in enumerate(SPEC.items())}
CODEC_TEXTS = sorted(
    {*PRESETS, *(row.example for row in (*STAGES.values(), *CODECS.values())), "ecsq:abs=0.001"} - {"flat"}
)


def blob(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_terms_come_back_as_the_same_agreement(name: str) -> None:
    row, private = ALGORITHMS[name], frozenset({"b/kernel"})
    parameters = row.parameters(learning_rate=0.3)
    agreement = Agreement(
        spec={path: SPEC[path] for path in SPEC if path not in private},
        initial={path: INITIAL[path] for path in SPEC if path not in private},
        algorithm=row.make(parameters),
        upload=parse_codec("ecsq:step=0.1"),
        download=parse_codec("float16"),
        memory="cafe",
        delta_step=0.1,
        pruning=PruningPlan(0.5, 1, 3),
        seed=2**62 + 1,
        bare_packets=name == "fedavg",
    )
    first = initial_bytes(INITIAL)
    got = terms_from_json(terms_to_json(agreement, SPEC, private, blob(first), asdict(parameters)), first)
    told, made = ({f.name: getattr(one, f.name) for f in fields(Agreement)} for one in (got.agreement, agreement))
    assert told.pop("algorithm").name == made.pop("algorithm").name
    for path, value in made.pop("initial").items():
        np.testing.assert_array_equal(told["initial"][path], value)
    told.pop("initial")
    assert told == {key: made[key] for key in told}
    assert list(got.whole) == list(SPEC)
    assert got.private == private


@pytest.mark.parametrize("text", CODEC_TEXTS)
def test_an_assignment_comes_back_with_the_same_codec(text: str) -> None:
    codec = contracting(parse_codec(text))
    published = codec.with_step(0.1 + 0.2) if isinstance(codec, Ecsq) else codec
    plan = FitPlan(epochs=3, learning_rate=0.1 + 0.2, trained=("a", "b"), momentum=0.1, class_weights=(1 / 3, 2.0))
    made = Assignment(7, plan, published, 0.7, 100)
    assert assignment_from_json(json.loads(json.dumps(assignment_to_json(made)))) == made


def test_a_receipt_comes_back() -> None:
    for made in (Receipt(weight=3, local_steps=2.5), Receipt(reason="late")):
        assert receipt_from_json(json.loads(json.dumps(receipt_to_json(made)))) == made


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[1]", b"{", b'{"held": NaN}', b'{"held": 1e999}', b'{"held": true}', b'{"held": -1}'),
        *(b'{"held": "3"}', b'{"held": 3, "more": 1}', b'{"held": 1.0}', b"\xff", b'{"held": ' + b"9" * 5000 + b"}"),
        b"[" * 100_000,
    ],
)
def test_json_of_strangers_is_refused_by_reason(body: bytes) -> None:
    with pytest.raises(WireError) as told:
        parse(body, {"held": whole(0, 10)})
    assert told.value.reason == "json"


@pytest.mark.parametrize(
    "change",
    [
        *({"format": 2}, {"algorithm": {"name": "nothing"}}, {"algorithm": {"name": "fedavg", "odd": 1}}),
        *({"upload": "nothing"}, {"spec": []}, {"spec": [["a", [2], True]]}, {"private": ["c"]}, {"pruning": {"x": 1}}),
        *({"memory": "elephant"}, {"seed": "1"}, {"spec": [["a", [-1], True]]}, {"spec": [["a"]]}, {"spec": 3}),
    ],
)
def test_terms_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    agreement = Agreement(SPEC, INITIAL, ALGORITHMS["fedavg"].build(), parse_codec("none"), parse_codec("none"))
    first = initial_bytes(INITIAL)
    good = terms_to_json(agreement, SPEC, frozenset(), blob(first), asdict(ALGORITHMS["fedavg"].parameters()))
    terms_from_json(good, first)
    with pytest.raises(WireError):
        terms_from_json(json.dumps({**json.loads(good), **change}).encode(), first)


MASKED = {"format": 3, "masks": {"group": 8, "dropouts": 0.1}}
SHARES = {"clip_norm": 1.0, "noise_multiplier": 1.0, "answers": 9, "numbers": 64, "group": 8, "least": 8}


def test_terms_of_masked_sums_come_back_and_have_a_format_of_their_own() -> None:
    agreement = Agreement(SPEC, INITIAL, ALGORITHMS["fedavg"].build(), parse_codec("none"), parse_codec("none"))
    first, parameters = initial_bytes(INITIAL), asdict(ALGORITHMS["fedavg"].parameters())
    plain = json.loads(terms_to_json(agreement, SPEC, frozenset(), blob(first), parameters))
    for more in (MASKED, {**MASKED, "share_noise": SHARES}):
        got = terms_from_json(json.dumps({**plain, **more}).encode(), first).agreement
        told = json.loads(terms_to_json(got, SPEC, frozenset(), blob(first), parameters))
        assert {name: told[name] for name in more} == more
    for wrong in (
        *({**MASKED, "format": 1}, {"format": 3}, {"share_noise": SHARES}, {**MASKED, "masks": {"group": 2}}),
        *({**MASKED, "masks": {"group": 2, "dropouts": 0.1}}, {**MASKED, "share_noise": {**SHARES, "least": 9}}),
        {**MASKED, "local_noise": {"clip_norm": 1.0, "noise_multiplier": 1.0, "answers": 1}},
    ):
        with pytest.raises(WireError):
            terms_from_json(json.dumps({**plain, **wrong}).encode(), first)


def test_first_weights_that_are_not_finite_are_refused() -> None:
    from fl_mobile.errors import FlMobileError

    agreement = Agreement(SPEC, INITIAL, ALGORITHMS["fedavg"].build(), parse_codec("none"), parse_codec("none"))
    odd = initial_bytes({**INITIAL, "b/kernel": np.float32(np.nan).reshape(())})
    body = terms_to_json(agreement, SPEC, frozenset(), blob(odd), asdict(ALGORITHMS["fedavg"].parameters()))
    with pytest.raises(FlMobileError):
        terms_from_json(body, odd)


def test_a_plan_of_a_newer_server_is_refused() -> None:
    made = assignment_to_json(Assignment(0, FitPlan(), parse_codec("none")))
    with pytest.raises(WireError, match="older"):
        assignment_from_json({**made, "plan": {**made["plan"], "new": 1}})
    assert assignment_from_json(made) == replace(Assignment(0, FitPlan(), parse_codec("none")))
