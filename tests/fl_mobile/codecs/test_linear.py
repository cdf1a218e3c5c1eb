"""The linear profile: payloads add up before anyone decodes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.linear import Linear
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, TensorSpec

SPEC: Spec = {"kernel": TensorSpec((13, 5)), "scale": TensorSpec(()), "bias": TensorSpec((7,))}


def update(key: int, clip: float = 1.0) -> Tensors:
    rng = np.random.default_rng(key)
    return {p: rng.uniform(-clip, clip, t.shape).astype(np.float32) for p, t in SPEC.items()}


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([value.ravel() for value in tensors.values()])


@given(bits=st.integers(1, 16), devices=st.integers(1, 65535))
def test_the_width_is_the_formula(bits, devices):
    assert Linear(1.0, bits, devices).width == math.ceil(math.log2(devices * (2**bits - 1) + 1))


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 16), count=st.integers(1, 9), spare=st.integers(0, 3), keep=st.sampled_from([1.0, 0.5, 0.03])
)
def test_sum_then_decode_is_decode_then_sum_exactly(bits, count, spare, keep):
    """The levels add up as integers for any step; with Δ a power of two the float values do too, to the last bit."""
    codec = Linear(2.0 ** (bits - 3) - 0.25 if bits > 1 else 0.5, bits, count + spare, keep, seed=5)
    payloads = [codec.encode(update(key, codec.clip), rng_for(0, key)) for key in range(count)]
    total = codec.add_payloads(payloads, SPEC)
    assert len(total) == len(payloads[0])
    fields = sum(codec.read_fields(p, SPEC) for p in payloads)
    assert codec.read_fields(total, SPEC).tolist() == fields.tolist()
    mean = flat(codec.decode_sum(total, SPEC, count)).astype(float)
    one_by_one = sum(flat(codec.decode(memoryview(p), SPEC)).astype(float) for p in payloads)
    assert np.allclose(mean * count, one_by_one, rtol=0, atol=1e-6 * count * codec.clip / keep)
    if keep == 1.0 and count in (1, 2, 4, 8):
        assert (mean * count == one_by_one).all()


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 16])
@pytest.mark.parametrize("devices", [1, 2, 100, 1000])
def test_all_devices_at_the_highest_level_do_not_overflow(bits, devices):
    codec = Linear(1.0, bits, devices)
    top = codec._pack(np.full(73, 2**bits - 1))
    total = codec.add_payloads([top] * devices, SPEC)
    assert (codec.read_fields(total, SPEC) == devices * (2**bits - 1)).all()
    codec.decode_sum(total, SPEC, devices)
    largest = codec.encode({p: np.ones(t.shape, np.float32) for p, t in SPEC.items()}, rng_for(0, 0))
    mean = codec.decode_sum(codec.add_payloads([largest] * devices, SPEC), SPEC, devices)
    assert np.allclose(flat(mean), 1.0, atol=1e-6)


def test_blinding_masks_that_cancel_leave_the_sum_alone():
    codec = Linear(1.0, 4, 2)
    payloads = [codec.encode(update(key), rng_for(0, key)) for key in range(2)]
    modulus = 1 << codec.width
    mask = np.random.default_rng(0).integers(0, modulus, 73)
    blinded = [
        codec._pack((codec.read_fields(p, SPEC) + sign * mask) % modulus)
        for p, sign in zip(payloads, (1, -1), strict=True)
    ]
    assert blinded[0] != payloads[0]
    assert codec.add_payloads(blinded, SPEC) == codec.add_payloads(payloads, SPEC)


@pytest.mark.parametrize(
    "text", ["linear:clip=1.0,bits=1", "linear:clip=1.0,bits=4", "linear:clip=1.0,bits=4,keep=0.25"]
)
def test_unbiased_and_within_a_step(text):
    codec, exact = parse_codec(text), flat(update(0))
    draws = []
    for key in range(600):
        masked = Linear(1.0, codec.bits, 100, codec.keep, seed=key)
        draws.append(flat(masked.decode(memoryview(masked.encode(update(0), rng_for(0, key))), SPEC)))
        if codec.keep == 1:
            assert np.abs(draws[-1] - exact).max() <= codec.step * (1 + 1e-6)
    spread = np.std(draws, axis=0) / np.sqrt(600)
    assert (np.abs(np.mean(draws, axis=0) - exact) < 4.5 * spread + 1e-6).all()


def test_zero_stays_zero_and_values_beyond_the_clip_are_clipped():
    codec = Linear(0.5, 4, 10)
    values = {p: np.zeros(t.shape, np.float32) for p, t in SPEC.items()}
    values["bias"][:2] = 7.0, -7.0
    decoded = codec.decode(memoryview(codec.encode(values, rng_for(0, 0))), SPEC)
    assert decoded["bias"].tolist() == [0.5, -0.5, 0, 0, 0, 0, 0]
    assert not decoded["kernel"].any()


def test_the_mask_is_shared_changes_with_the_seed_and_has_the_promised_size():
    one, same, other = (Linear(1.0, 4, 10, 0.1, seed) for seed in (1, 1, 2))
    assert one.positions(1000).tolist() == same.positions(1000).tolist() != other.positions(1000).tolist()
    assert len(one.positions(1000)) == len(set(one.positions(1000).tolist())) == 100
    spec = {"w": TensorSpec((1000,))}
    payload = one.encode({"w": np.ones(1000, np.float32)}, rng_for(0, 0))
    assert len(payload) == math.ceil(100 * one.width / 8)
    assert one.decode(memoryview(payload), spec)["w"].max() == pytest.approx(10.0)


@pytest.mark.parametrize("damage", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: p[:-1] + bytes([p[-1] | 1])])
def test_payloads_of_another_length_or_padding_are_refused(damage):
    codec = Linear(1.0, 4, 100)
    payload = damage(codec.encode(update(0), rng_for(0, 0)))
    with pytest.raises(WireError):
        codec.decode(memoryview(payload), SPEC)
    with pytest.raises(WireError):
        codec.add_payloads([payload], SPEC)


def test_a_sum_of_more_than_it_says_is_refused():
    codec = Linear(1.0, 4, 100)
    three = codec.add_payloads([codec._pack(np.full(73, 15))] * 3, SPEC)
    with pytest.raises(WireError, match="2 devices"):
        codec.decode_sum(three, SPEC, 2)
    with pytest.raises(WireError, match="101"):
        codec.decode_sum(three, SPEC, 101)


@pytest.mark.parametrize(
    "text",
    ["linear", "linear:clip=0", "linear:clip=1,bits=17", "linear:clip=1,keep=0", "linear:clap=1", "linear:clip=x"],
)
def test_bad_options_are_named(text):
    with pytest.raises(ConfigError, match="linear"):
        parse_codec(text)


def test_the_name_is_read_back():
    codec = parse_codec("linear:clip=0.01,bits=4,devices=50,keep=0.1,seed=9")
    assert parse_codec(codec.name) == codec
