"""The codec `sketch` against a slow version written from its page, its error formula, and what a sum needs."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile import wire
from fl_mobile.client.answer import Terms, answer
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.choice import Target, choose, fitted
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.sketch.projection import blocks, bucket_sums, codes_of, rotate, round_key, spread, unrotate
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import FitPlan, Update
from fl_mobile.server.admission import Admission, Admitted, admit_each
from fl_mobile.tensors import Tensors, TensorSpec, clip_by_norm, global_norm
from tests.fl_mobile.samples import SPEC, hashed, header, laplace, nmse, packed, philox, through

_64 = (1 << 64) - 1
CENTROIDS = {1: [-0.7978845608, 0.7978845608], 2: [-1.5104176087, -0.4527800398, 0.4527800398, 1.5104176087]}


class SlowDecoder:
    """What somebody writes who has read the page and knows nothing of NumPy: plain integers and floats."""

    def __init__(self, seed: int, round_num: int, values: int, k: int) -> None:
        self.state = (seed + round_num * 0x9E3779B97F4A7C15) & _64
        key = self.draw()
        count = k * -(-values // k)
        self.state, places, self.sign = key, list(range(count)), [1] * count
        for i in range(count - 1, -1, -1):
            t = self.draw()
            j = ((t >> 32) * (i + 1)) >> 32
            places[i], places[j] = places[j], places[i]
            self.sign[i] = -1 if t & 1 else 1
        self.bucket = [p % k for p in places]
        self.state = key ^ _64
        bits = [bit for _ in range(-(-2 * k // 64)) for bit in self._bits(self.draw())]
        self.first, self.second = [1 - 2 * b for b in bits[:k]], [1 - 2 * b for b in bits[k : 2 * k]]
        self.values, self.k = values, k

    def draw(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & _64
        t = ((self.state ^ self.state >> 30) * 0xBF58476D1CE4E5B9) & _64
        t = ((t ^ t >> 27) * 0x94D049BB133111EB) & _64
        return t ^ t >> 31

    @staticmethod
    def _bits(draw: int) -> list[int]:
        return [draw >> i & 1 for i in range(64)]

    def unrotated(self, z: list[float]) -> list[float]:
        out, at = [], 0
        for n in blocks(self.k):
            block = self._butterflies(z[at : at + n])
            block = self._butterflies([s * v for s, v in zip(self.second[at : at + n], block, strict=True)])
            out += [v * s / n for v, s in zip(block, self.first[at : at + n], strict=True)]
            at += n
        return out

    @staticmethod
    def _butterflies(block: list[float]) -> list[float]:
        block, h = list(block), 1
        while h < len(block):
            for i in range(len(block)):
                if not i & h:
                    block[i], block[i + h] = block[i] + block[i + h], block[i] - block[i + h]
            h *= 2
        return block

    def decode(self, payload: bytes, bits: int) -> list[float]:
        lengths, z = blocks(self.k), []
        scales = struct.unpack(f"<{len(lengths)}f", payload[: 4 * len(lengths)])
        stream = "".join(f"{byte:08b}" for byte in payload[4 * len(lengths) :])
        for n, scale in zip(lengths, scales, strict=True):
            for _ in range(n):
                z.append(CENTROIDS[bits][int(stream[:bits], 2)] * scale if scale else 0.0)
                stream = stream[bits:] if scale else stream
        u = [struct.unpack("<f", struct.pack("<f", v))[0] for v in self.unrotated(z)]
        return [self.sign[i] * u[self.bucket[i]] for i in range(self.values)]


@pytest.mark.parametrize(("k", "bits"), [(128, 1), (64, 2), (384, 2), (1, 1), (1024, 1)])
@pytest.mark.parametrize("round_num", [0, 7, 2**31])
def test_a_decoder_written_from_the_page_decodes_every_bit(k: int, bits: int, round_num: int) -> None:
    spec = {"a": TensorSpec((13, 29)), "b": TensorSpec((4,)), "c": TensorSpec(())}
    codec, update = Sketch(k, bits, seed=2**63 + 11), laplace(spec)
    update["a"][:3] = 0
    packet = wire.pack(header(round_num), update, spec, codec, philox(0))
    payload = packet[40:-4]
    decoded = wire.unpack(packet, spec, codec).tensors
    slow = SlowDecoder(codec.seed, round_num, 382, k).decode(payload, bits)
    assert np.concatenate([v.ravel() for v in decoded.values()]).tolist() == slow


def test_a_block_of_zeros_sends_its_scale_alone() -> None:
    spec = {"w": TensorSpec((500,))}
    for text in ("sketch:k=256", "sketch:k=384,bits=3"):
        payload = parse_codec(text).encode({"w": np.zeros(500, np.float32)}, philox(0))
        assert payload == bytes(4 * len(blocks(parse_codec(text).k)))
    one = np.eye(1, 500, dtype=np.float32)[0]
    payload = parse_codec("sketch:k=384,bits=3").encode({"w": one}, philox(0))
    assert len(payload) in (8 + 256 * 3 // 8, 8 + 128 * 3 // 8), "one bucket, so one of two blocks"
    parse_codec("sketch:k=384,bits=3").decode(memoryview(payload), spec)


@given(k=st.sampled_from([1, 2, 64, 128, 384, 1280]), values=st.integers(1, 2000), key=st.integers(0, _64))
@settings(max_examples=30, deadline=None)
def test_the_projection_is_linear_even_and_its_ways_are_transposes(k: int, values: int, key: int) -> None:
    rng = philox(values)
    x, y = rng.normal(size=(2, values)).astype(np.float32)
    sums = bucket_sums({"x": x}, key, k)
    assert np.allclose(bucket_sums({"x": x + y}, key, k), sums + bucket_sums({"y": y}, key, k), atol=1e-3)
    numbers = rng.normal(size=k)
    assert np.isclose(sums @ numbers, x @ spread(numbers.astype(np.float32), key, values), atol=1e-2)
    codes = codes_of(key, values, k)
    for kind in (np.float32, np.float64, np.int64):  # clients decode, servers check, and forward whole sums
        some = (numbers * 2.0**40).astype(kind)
        got = spread(some, key, values)
        assert got.dtype == kind
        assert np.array_equal(got, np.where(codes & 1, -some[codes >> 1], some[codes >> 1]))
    counts = np.bincount(codes >> 1, minlength=k)
    assert counts.max() <= -(-values // k)
    assert np.allclose(unrotate(rotate(numbers, key), key), numbers, atol=1e-9)
    assert np.isclose(np.linalg.norm(rotate(numbers, key)), np.linalg.norm(numbers))


def test_rounds_and_runs_have_projections_of_their_own() -> None:
    keys = {round_key(seed, t) for seed in (0, 1, 2**64 - 1) for t in (0, 1, 63, 64, 2**31)}
    assert len(keys) == 15
    codes = [codes_of(key, 4000, 256) for key in (1, 2)]
    assert 0.45 < np.mean((codes[0] & 1) == (codes[1] & 1)) < 0.55
    assert np.mean((codes[0] >> 1) == (codes[1] >> 1)) < 0.02
    assert 0.45 < np.mean(codes[0] & 1) < 0.55


@pytest.mark.parametrize(("k", "bits"), [(1024, 1), (1024, 2), (256, 1), (2048, 4)])
def test_the_error_is_the_formula_whatever_the_update(k: int, bits: int) -> None:
    spec = {"w": TensorSpec((128, 160))}
    spiky = {"w": (philox(1).standard_t(2, (128, 160)) * (philox(2).random((128, 160)) < 0.4)).astype(np.float32)}
    even = {"w": np.ones((128, 160), np.float32)}
    codec = Sketch(k, bits)
    for update in (spiky, even):
        found = np.mean([nmse(update, through(codec, update, spec, round_num=t)) for t in range(30)])
        assert found == pytest.approx(codec.error(20_480), rel=0.12)


def test_packets_have_the_length_that_is_promised_and_fit_what_is_asked() -> None:
    spec = {"w": TensorSpec((300, 100)), "norm/moving_mean": TensorSpec((10,), trainable=False)}
    for bits in (1, 2, 3, 4):
        for budget in (100, 150, 400, 900, 5000):
            codec = fitted(Sketch(bits=bits), Target(budget_bytes=budget), spec, seed=1)
            size = len(packed(codec, laplace(spec), spec))
            assert size == 44 + 40 + codec.payload_bytes
            assert size <= budget
            assert size > 0.7 * budget or budget < 160
    assert len(packed(fitted(Sketch(), Target(ratio=300), spec, 1), laplace(spec), spec)) <= 4 * 30_010 / 300


def test_a_target_a_packet_cannot_meet_and_a_k_larger_than_the_model_are_refused_in_one_line() -> None:
    spec = {"w": TensorSpec((30, 10)), "norm/moving_mean": TensorSpec((10,), trainable=False)}
    with pytest.raises(ConfigError, match=r"cannot fit into 88 bytes, of which header and statistics take 84.*budget"):
        fitted(Sketch(), Target(budget_bytes=88), spec, 0)
    with pytest.raises(ConfigError, match=r"sends 3072 numbers of a model that has 300 trainable.*lower k, e.g."):
        fitted(Sketch(), Target(), spec, 0)
    assert fitted(Sketch(), Target(budget_bytes=5000), spec, 0).k <= 300
    assert fitted(Ecsq(), Target(ratio=30), spec, 0) == Ecsq()


def admit(packet: bytes, **about: Any) -> Admitted:
    """Returns the packet as the server counts it; raises why it does not."""
    (one,) = admit_each([packet], **about)
    if isinstance(one, WireError):
        raise one
    return one


def test_packets_of_another_projection_are_refused_by_name() -> None:
    update, codec = laplace(), Sketch(256, seed=1)
    for other in (Sketch(256, seed=2), Sketch(512, seed=1), Sketch(256, 2, seed=1)):
        with pytest.raises(WireError, match="this round uses 'sketch:k=256") as caught:
            wire.unpack(packed(other, update), SPEC, codec)
        assert caught.value.reason == "codec"
    rules = {"layout": wire.Layout(SPEC, codec), "rules": Admission(), "plan": FitPlan()}
    with pytest.raises(WireError, match="round"):
        admit(packed(codec, update, round_num=4), round_num=3, **rules)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_fields_add_up_mod_two_to_the_width_and_only_the_sum_has_to_fit(count: int) -> None:
    spec = {"w": TensorSpec((700,))}
    wide, narrow = Sketch(256, width=20, step=0.25), Sketch(256, width=6, step=0.25)
    updates = [{"w": laplace(spec, key)["w"] * np.float32((-1) ** key * 4)} for key in range(count)]
    last = {"w": sum(u["w"] for u in updates) * np.float32(-1)}
    parts = [*updates, last]
    both = [c.add_payloads([c.encode(u, philox(i)) for i, u in enumerate(parts)], spec) for c in (wide, narrow)]
    assert np.abs(wide.decode_sum(both[0], spec, 1)["w"]).max() < 32 * 0.25 * 3, "the sum is near zero"
    signed = wide.read_fields(both[0], spec)
    assert np.array_equal(signed & 63, narrow.read_fields(both[1], spec)), "wraps on the way do not matter"
    levels = np.where(signed >= 1 << 19, signed - (1 << 20), signed)
    slow = spread(unrotate(levels * 0.25, wide.seed).astype(np.float32), wide.seed, 700)
    assert np.array_equal(wide.decode_sum(both[0], spec, 1)["w"], slow)
    assert np.allclose(wide.decode_sum(both[0], spec, 4)["w"] * 4, slow, atol=1e-4)


def test_masks_that_cancel_leave_the_sum_of_fields_alone() -> None:
    codec, spec = Sketch(128, width=7, step=0.5), {"w": TensorSpec((300,))}
    payloads = [codec.encode(laplace(spec, key), philox(key)) for key in range(2)]
    mask = philox(9).integers(0, 128, 128)
    blinded = [codec.pack(codec.read_fields(p, spec) + s * mask) for p, s in zip(payloads, (1, -1), strict=True)]
    assert blinded[0] != payloads[0]
    assert codec.add_payloads(blinded, spec) == codec.add_payloads(payloads, spec)


@pytest.mark.parametrize("length", [0, 111, 113, 500])
def test_fields_of_another_length_are_refused(length: int) -> None:
    codec = Sketch(128, width=7, step=0.5)
    with pytest.raises(WireError):
        codec.add_payloads([bytes(length)], {"w": TensorSpec((300,))})


def test_updates_are_clipped_before_they_are_encoded_and_the_server_bounds_who_does_not() -> None:
    layout = wire.Layout(SPEC, Sketch(64))
    terms, rules = Terms(layout, 3, clip_norm=2.0), Admission(clip_norm=2.0)
    update = laplace()
    update["norm/moving_variance"] *= 0
    honest = answer(terms, Update(update, 60, {"loss": 0.5}), 0).packet
    said = wire.unpack(honest, SPEC, layout.codec).tensors
    counted = admit(honest, round_num=3, layout=layout, rules=rules, plan=FitPlan()).delta
    assert global_norm(said) > 2.0 * 3, "a decoded sketch is longer than the update"
    assert all(np.array_equal(counted[p], said[p]) for p in SPEC), "an honest one is left as it is"
    clipped = clip_by_norm(update, 2.0)
    assert np.array_equal(said["dense/kernel"], through(layout.codec, clipped)["dense/kernel"])
    liar = packed(layout.codec, {p: v * 100 for p, v in update.items()})
    bounded = admit(liar, round_num=3, layout=layout, rules=rules, plan=FitPlan()).delta
    assert global_norm(bounded) <= 2.0 * layout.codec.norm_gain(1793) * (1 + 1e-6)


def test_auto_says_what_it_chose_and_why() -> None:
    spec = {"w": TensorSpec((1000, 100))}
    for target, codec, why in (
        (Target(), Ecsq, "no target"),
        (Target(ratio=100), Ecsq, "0.32 bits a parameter are enough"),
        (Target(ratio=320), Ecsq, "0.1 bits"),
        (Target(ratio=321), Sketch, "below 0.1 bits a parameter"),
        (Target(budget_bytes=400), Sketch, "0.032 here"),
        (Target(budget_bytes=4000), Ecsq, "0.32 bits"),
    ):
        found, told = choose("auto", target, spec)
        assert isinstance(found, codec)
        assert why in told
    assert choose("q8", Target(), spec)[0] == parse_codec("q8")
    assert choose("q8", Target(), spec, clipped=True)[0] == parse_codec("q8")
    clipped, told = choose("auto", Target(), spec, clipped=True)
    assert clipped.name == "ecsq:step=1.25,rounding=rdo"
    assert "clip" in told
    assert isinstance(choose("auto", Target(), spec, masked=True, clipped=True)[0], Sketch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sketch:k=0", "multiple of 128, or a power of two below, got 0"),
        ("sketch:k=100", "multiple of 128"),
        ("sketch:k=1000", "multiple of 128"),
        ("sketch:bits=5", "bits must be 1 to 4, got 5"),
        ("sketch:k=128,width=1,step=1", "width 2 to 32 and step above 0"),
        ("sketch:k=128,width=5", "width 2 to 32 and step above 0"),
        ("sketch:k=128,step=nan,width=5", "step above 0"),
        ("sketch:k=128,step=1", "step needs width"),
        ("sketch:k=128,seed=-1", "unsigned 64-bit"),
        ("sketch:kk=3", "unknown option 'kk'.*Did you mean 'k'"),
        ("sketch:k=many", "'k' must be a number, got 'many'"),
    ],
)
def test_texts_that_name_no_sketch_say_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_codec(text)


def test_encoding_does_not_change_with_the_way_sums_are_made() -> None:
    """Scales come of exact sums: the golden packet is the same whatever vector unit NumPy adds with."""
    numbers = bucket_sums(hashed({"w": TensorSpec((4000,))}), 5, 256)
    scale, _ = Sketch(256)._quantized(numbers)
    exact = math.fsum(v * v for v in numbers) / math.fsum(abs(v) * CENTROIDS[1][1] for v in numbers)
    assert scale == np.float32(exact)


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([value.ravel() for value in tensors.values()])


def test_the_seed_of_a_name_is_the_projection() -> None:
    codec = Sketch(128, seed=9)
    assert parse_codec(codec.name) == codec
    assert replace(codec, seed=0).name == "sketch:k=128,bits=1"
    update = laplace()
    assert not np.array_equal(flat(through(codec, update)), flat(through(replace(codec, seed=8), update)))
