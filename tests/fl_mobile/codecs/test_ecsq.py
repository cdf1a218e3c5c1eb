"""The ecsq codec: round trip, bounds, unbiasedness, what contexts and low rank are worth, and odd tensors."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.ecsq.codec import Rounding
from fl_mobile.codecs.ecsq.payload import CODED, RAW, ZERO
from fl_mobile.errors import ConfigError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, TensorSpec
from tests.fl_mobile.golden import FOLDER


def spec_of(delta: Tensors) -> Spec:
    return {path: TensorSpec(value.shape) for path, value in delta.items()}


def trip(codec: Ecsq, delta: Tensors, key: int = 0) -> tuple[bytes, Tensors]:
    payload = codec.encode(delta, rng_for(0, key))
    return payload, codec.decode(memoryview(payload), spec_of(delta))


def structured(seed: int = 0, rank: int = 3) -> Tensors:
    """An update as few examples make it: low rank, silent inputs, units of very different activity, one-sided signs."""
    rng = np.random.default_rng(seed)
    inputs = rng.exponential(size=(rank, 300)) ** 2 * (rng.random(300) < 0.7)
    units = rng.standard_normal((rank, 64)) * np.exp(rng.standard_normal(64) * 2)
    noise = rng.laplace(size=(300, 64)) * np.outer(inputs[0], np.abs(units[0])) ** 0.5 * 0.1
    return {
        "kernel": (inputs.T @ units + noise).astype(np.float32),
        "bias": rng.standard_normal(64).astype(np.float32),
    }


def nmse(delta: Tensors, decoded: Tensors) -> float:
    error = sum(float(np.square(delta[p].astype(float) - decoded[p]).sum()) for p in delta)
    return error / sum(float(np.square(v.astype(float)).sum()) for v in delta.values())


SHAPES = st.lists(
    st.sampled_from(
        [(0,), (1,), (), (7,), (64, 3), (3, 64), (2, 2), (5, 1, 4), (1, 40), (40, 1), (40, 24), (3, 3, 4, 20)]
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(
    shapes=SHAPES,
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 4),
    step=st.floats(0.01, 30),
    rounding=st.sampled_from(["stochastic", "rdo", "nearest"]),
    rank=st.sampled_from([0, 2, 15]),
)
def test_any_update_decodes_within_its_bound(shapes, seed, spread, step, rounding, rank):
    rng = np.random.default_rng(seed)
    delta = {
        str(i): (rng.standard_normal(s) * np.exp(rng.standard_normal(s) * spread)).astype(np.float32)
        for i, s in enumerate(shapes)
    }
    codec = Ecsq(step, rounding, rank=rank)
    payload, decoded = trip(codec, delta)
    assert [v.shape for v in decoded.values()] == [v.shape for v in delta.values()]
    if payload[0] == CODED:
        bound = float(np.frombuffer(payload[1:5], "<f4")[0]) * {"stochastic": 1, "nearest": 0.5, "rdo": 2}[rounding]
        for path, value in delta.items():
            assert (np.abs(value.astype(float) - decoded[path]) <= bound * (1 + 1e-6) + np.abs(value) * 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=3, max_side=9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_any_finite_values_at_all_decode_to_finite_values(values):
    for rounding in ("stochastic", "rdo", "nearest"):
        _, decoded = trip(Ecsq(rounding=rounding), {"w": values})
        assert np.isfinite(decoded["w"]).all()


@pytest.mark.parametrize("rank", [0, 15])
def test_stochastic_rounding_is_unbiased(rank):
    delta = structured()
    codec = Ecsq(8.0, rank=rank)
    total, single = np.zeros(delta["kernel"].shape), []
    for key in range(64):
        decoded = trip(codec, delta, key)[1]
        total += decoded["kernel"]
        single.append(nmse({"kernel": delta["kernel"]}, {"kernel": decoded["kernel"]}))
    mean_error = nmse({"kernel": delta["kernel"]}, {"kernel": total / 64})
    assert mean_error * 64 == pytest.approx(np.mean(single), rel=0.15)


def test_rdo_is_biased_and_that_shows():
    delta = structured()
    decoded = [trip(Ecsq(4.0, "rdo"), delta, key)[1]["kernel"] for key in range(4)]
    assert all(np.array_equal(decoded[0], other) for other in decoded)


def test_same_seed_same_bytes_other_seed_other_bytes():
    delta, codec = structured(), Ecsq()
    assert codec.encode(delta, rng_for(1, 2)) == codec.encode(delta, rng_for(1, 2))
    assert codec.encode(delta, rng_for(1, 2)) != codec.encode(delta, rng_for(1, 3))


def test_contexts_and_low_rank_each_help_on_structured_updates_and_cost_nothing_on_noise():
    delta = structured()
    size = delta["kernel"].size
    shuffled = dict(delta, kernel=np.random.default_rng(1).permutation(delta["kernel"].ravel()).reshape(300, 64))
    codec = Ecsq(1.0, "rdo", rank=0)
    plain, with_classes = len(trip(codec, shuffled)[0]), len(trip(codec, delta)[0])
    assert with_classes < 0.8 * plain, (with_classes, plain)
    low_payload, low = trip(Ecsq(1.0, "rdo"), delta)
    flat_payload, flat = trip(codec, delta)
    assert len(low_payload) < 0.7 * len(flat_payload)
    assert nmse(delta, low) < 1.3 * nmse(delta, flat)
    noise = {"w": np.random.default_rng(2).standard_normal((300, 64)).astype(np.float32)}
    assert len(trip(Ecsq(1.0, "rdo"), noise)[0]) <= len(trip(codec, {"w": noise["w"].ravel()})[0]) * 1.02
    assert size == 300 * 64


def gaussian_excess(bits: float) -> float:
    """Bits above Shannon's ½·log2(1/NMSE) of rdo on Gaussian values at about this many bits a value."""
    delta = {"w": np.random.default_rng(0).standard_normal(100_000).astype(np.float32)}
    low, high = 0.05, 6.0
    for _ in range(12):
        step = (low * high) ** 0.5
        payload, decoded = trip(Ecsq(step, "rdo"), delta)
        low, high = (step, high) if 8 * len(payload) / 100_000 > bits else (low, step)
    return 8 * len(payload) / 100_000 - 0.5 * np.log2(1 / nmse(delta, decoded))


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "limit"), [(0.1, 0.05), (0.25, 0.10), (1, 0.26), (2, 0.26), (4, 0.26)])
def test_gaussian_values_take_little_more_than_shannon_allows(bits, limit):
    assert gaussian_excess(bits) < limit


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (np.zeros((50, 40)), ZERO),
        (np.zeros((0, 4)), ZERO),
        (np.full((), 3.5), RAW),
        (np.full(600, -0.25), CODED),
        (np.linspace(-1e-44, 3e-44, 600), CODED),
        (np.linspace(-3.4e38, 3.4e38, 600), CODED),
        (np.eye(1, 5000, 77).ravel() * 1e-20, CODED),
    ],
    ids=["zeros", "empty", "scalar", "constant", "denormal", "huge", "one value"],
)
def test_odd_tensors(values, form):
    values = values.astype(np.float32)
    payload, decoded = trip(Ecsq(abs_step := 0.5), {"w": values})
    assert payload[0] == form
    assert decoded["w"].shape == values.shape
    assert np.isfinite(decoded["w"]).all()
    if form == CODED:
        step = float(np.frombuffer(payload[1:5], "<f4")[0])
        assert step == pytest.approx(abs_step * np.sqrt(np.mean(np.square(values, dtype=float))), rel=0.3, abs=3e-45)
        assert (np.abs(values.astype(float) - decoded["w"]) <= step * (1 + 1e-6) + np.abs(values) * 1e-6).all()


def test_a_constant_update_of_any_length_costs_one_byte_for_256_values():
    payload, decoded = trip(Ecsq(1.0, "nearest"), {"w": np.full((1000, 100), 2.0, np.float32)})
    assert len(payload) == -(-100_000 // 256) + 7  # form, step and shifts come on top
    assert (decoded["w"] == 2.0).all()


def test_a_step_too_fine_for_the_largest_value_is_made_coarser_instead_of_overflowing():
    values = np.array([1e6, 1e-6, -3.0] * 200, np.float32)
    payload, decoded = trip(Ecsq(1e-9, absolute=True), {"w": values})
    assert payload[0] == RAW or np.frombuffer(payload[1:5], "<f4")[0] == pytest.approx(1e6 / (2**20 - 1), rel=1e-3)
    assert np.abs(values - decoded["w"]).max() <= 1.01 * 1e6 / (2**20 - 1)


def test_small_updates_have_a_small_head():
    delta = {"w": np.eye(1, 8000, 5).reshape(800, 10).astype(np.float32)}
    assert len(trip(Ecsq(), delta)[0]) <= 24


def test_another_process_decodes_the_same_values():
    delta = structured()
    payload, decoded = trip(Ecsq(2.0, "rdo"), delta)
    script = (
        "import sys; from fl_mobile.codecs import parse_codec; from fl_mobile.tensors import TensorSpec;"
        "spec = {'kernel': TensorSpec((300, 64)), 'bias': TensorSpec((64,))};"
        "out = parse_codec('ecsq').decode(memoryview(sys.stdin.buffer.read()), spec);"
        "sys.stdout.buffer.write(b''.join(v.tobytes() for v in out.values()))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=payload, capture_output=True, check=True)
    assert done.stdout == b"".join(v.tobytes() for v in decoded.values())


@pytest.mark.parametrize("rounding", ["stochastic", "rdo", "nearest"])
def test_without_numba_the_same_bytes_are_written_and_read(rounding):
    """The same functions as plain Python: what a machine without numba runs, and an oracle for the compiler."""
    delta = structured()
    payload, decoded = trip(codec := Ecsq(2.0, rounding), delta)
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "from fl_mobile.codecs import parse_codec\nfrom fl_mobile.seeds import rng_for\n"
        "from tests.fl_mobile.codecs.test_ecsq import spec_of, structured\n"
        "codec, delta = parse_codec(sys.argv[1]), structured()\n"
        "payload = codec.encode(delta, rng_for(0, 0))\n"
        "decoded = codec.decode(memoryview(payload), spec_of(delta))\n"
        "sys.stdout.buffer.write(payload + b''.join(value.tobytes() for value in decoded.values()))"
    )
    done = subprocess.run([sys.executable, "-c", script, codec.name], capture_output=True, check=True)
    assert done.stdout == payload + b"".join(value.tobytes() for value in decoded.values())


def test_the_golden_payload_with_every_feature_decodes_to_the_golden_values():
    """Classes, sign classes, low rank, shifts and escapes: decoding is integers and IEEE, so equal on every machine."""
    payload = (FOLDER / "ecsq_structured_rdo.payload").read_bytes()
    spec = {"kernel": TensorSpec((300, 64)), "bias": TensorSpec((64,))}
    decoded = Ecsq().decode(memoryview(payload), spec)
    digest = hashlib.sha256(b"".join(v.astype("<f4").tobytes() for v in decoded.values())).hexdigest()
    assert digest == "f9c2ac735cc055548303aebae042f482f52bfbb3fc654eaa43eb8435c878d2fb"
    assert nmse(structured(), decoded) < 0.1


NAMES = (
    *("ecsq", "ecsq:step=4", "ecsq:abs=0.001,rounding=rdo,rank=0", "ecsq:step=0.5"),
    *("ecsq:examples=50", "ecsq:step=2,examples=7,rounding=rdo", "ecsq:abs=0.25,examples=1"),
)


@pytest.mark.parametrize("text", NAMES)
def test_names_are_read_back_and_all_share_one_wire_name(text):
    codec = parse_codec(text)
    assert parse_codec(codec.name) == codec
    assert codec.name == text
    assert codec.wire_name == "ecsq"
    assert codec.with_step(3.0).wire_name == "ecsq"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ecsq:stpe=4", "step"),
        ("ecsq:step=a", "number"),
        ("ecsq:step=-1", "above 0"),
        ("ecsq:step=nan", "above 0"),
        ("ecsq:step=1,abs=2", "not both"),
        ("ecsq:rounding=rd", "rdo"),
        ("ecsq:rank=99", "rank"),
        ("ecsq:rank=x", "rank"),
        ("ecsq:examples=0", "1 or more"),
        ("ecsq:examples=-3", "whole number"),
        ("ecsq:examples=1.5", "whole number"),
    ],
)
def test_bad_options_are_named(text, word):
    with pytest.raises(ConfigError, match=word):
        parse_codec(text)


@settings(max_examples=25, deadline=None)
@given(
    step=st.floats(0.01, 50),
    usual=st.integers(1, 10_000),
    own=st.integers(0, 10_000),
    absolute=st.booleans(),
    rounding=st.sampled_from(["stochastic", "rdo", "nearest"]),
)
def test_a_client_takes_the_step_of_its_examples_and_any_decoder_reads_it(
    step: float, usual: int, own: int, absolute: bool, rounding: Rounding
) -> None:
    delta = {"w": np.random.default_rng(0).laplace(size=(40, 20)).astype(np.float32)}
    told = Ecsq(step, rounding, absolute, examples=usual)
    header = wire.Header(wire.UPDATE, 2, 2, own, 0.5)
    packet = wire.pack(header, delta, spec_of(delta), told, rng_for(0, 1))
    alike = Ecsq(step * usual / max(own, 1), rounding, absolute)
    assert packet == wire.pack(header, delta, spec_of(delta), alike, rng_for(0, 1))
    got = wire.unpack(packet, spec_of(delta), Ecsq()).tensors["w"]
    np.testing.assert_array_equal(got, wire.unpack(packet, spec_of(delta), told).tensors["w"])


STEPS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


def test_steps_by_examples_spend_bytes_where_the_mean_needs_them() -> None:
    """Sizes as of speaking roles in Shakespeare, updates that grow with their number of steps, three draws."""
    spec = {"w": TensorSpec((200, 100))}

    def of(codec: Ecsq, seed: int) -> tuple[float, int]:
        """Returns the error of the weighted mean of 20 clients, over its energy, and the bytes of all packets."""
        rng = np.random.default_rng(seed)
        sizes = np.maximum(1, rng.lognormal(3.5, 1.5, 20)).astype(int)
        common = rng.laplace(size=(200, 100))
        true, got, spent = np.zeros((200, 100)), np.zeros((200, 100)), 0
        for number, size in enumerate(sizes.tolist()):
            update = ((common + 2 * rng.laplace(size=(200, 100))) * size**0.5).astype(np.float32)
            header = wire.Header(wire.UPDATE, 0, 0, size, 0.5)
            packet = wire.pack(header, {"w": update}, spec, codec, rng_for(seed, number))
            true += size * update
            got += size * wire.unpack(packet, spec, codec).tensors["w"]
            spent += len(packet)
        return float(np.square(got - true).sum() / np.square(true).sum()), spent

    for seed in range(3):
        alike, most = of(Ecsq(8.0), seed)
        weighed = min(error for error, spent in (of(Ecsq(step, examples=100), seed) for step in STEPS) if spent <= most)
        assert weighed < 0.6 * alike, (seed, alike, weighed)
