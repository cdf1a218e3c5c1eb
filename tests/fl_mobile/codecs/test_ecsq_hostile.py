"""Bytes nobody should send: only `WireError` comes out, in bounded memory, and an honest payload still decodes."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from functools import cache

import numpy as np
import pytest

from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.ecsq.bits import golomb, put
from fl_mobile.codecs.ecsq.layout import Plans, shapes_of
from fl_mobile.codecs.ecsq.read import read_levels
from fl_mobile.codecs.ecsq.records import Factors, Levels
from fl_mobile.codecs.ecsq.write import write_levels
from fl_mobile.errors import WireError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, TensorSpec
from tests.fl_mobile.codecs.test_ecsq import structured

SPEC: Spec = {"kernel": TensorSpec((300, 64)), "bias": TensorSpec((64,))}
LARGE: Spec = {"kernel": TensorSpec((1000, 1000))}


@cache
def honest(step: float, rounding: str) -> bytes:
    return Ecsq(step, rounding).encode(structured(), rng_for(0, 0))  # type: ignore[arg-type]


def decode_or_refuse(data: bytes, spec: Spec = SPEC) -> bool:
    """Returns whether the payload was taken; anything but a `WireError` escapes."""
    try:
        decoded = Ecsq().decode(memoryview(data), spec)
    except WireError:
        return False
    assert all(np.isfinite(value).all() for value in decoded.values())
    assert [value.shape for value in decoded.values()] == [tensor.shape for tensor in spec.values()]
    return True


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    kind = rng.integers(5)
    at = int(rng.integers(len(out))) if rng.random() < 0.5 else int(rng.integers(min(len(out), 80)))
    if kind == 0:
        out[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        out[at] = int(rng.integers(256))
    elif kind == 2:
        del out[at:]
    elif kind == 3:
        out[at:at] = rng.bytes(int(rng.integers(1, 9)))
    else:
        del out[at : at + int(rng.integers(1, 9))]
    return bytes(out)


KINDS = pytest.mark.parametrize(("step", "rounding"), [(8.0, "stochastic"), (2.0, "rdo"), (0.3, "nearest")])


def attack(step: float, rounding: str, rounds: int) -> None:
    rng = np.random.default_rng(int(step * 10) + rounds)
    taken = sum(decode_or_refuse(mutate(honest(step, rounding), rng)) for _ in range(rounds))
    assert taken < rounds / 4, "most damage must be seen even without the packet's checksum"


@KINDS
def test_mutated_payloads_are_refused_or_decode_to_finite_values(step, rounding):
    attack(step, rounding, rounds=400)


@pytest.mark.slow
@KINDS
def test_many_mutated_payloads(step, rounding):
    attack(step, rounding, rounds=6000)


@pytest.mark.slow
def test_no_index_leaves_its_array_whatever_arrives(tmp_path):
    """Compiled code does not look; here it does, and an `IndexError` is none of the errors these suites expect."""
    environment = dict(os.environ, NUMBA_BOUNDSCHECK="1", XDG_CACHE_HOME=str(tmp_path))
    chosen = "many_mutated or noise or kilobyte or appended or larger"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_noise_of_any_length_is_refused():
    rng = np.random.default_rng(0)
    for length in range(0, 300, 3):
        assert not decode_or_refuse(b"\x02" + rng.bytes(length))


def claims(count: int, ranks: tuple[int, ...], slots_level: int = 1) -> bytes:
    """A payload of about 1 kB that says it holds ``count`` non-zeros."""
    fields = [(1, 1), (1, 8), (128, 8), (128, 8), (ranks[0], 4)] if any(ranks) else [(0, 1)]
    fields += [(slots_level, 5), (0, 3)] * (1 + 2 * sum(map(bool, ranks))) + [(slots_level, 5), (slots_level, 5)]
    side, at = np.zeros(60, np.uint8), 0
    for value, width in fields:
        at = put(side, at, value, width)
    at = golomb(side, at, count, 4)
    at = golomb(side, at, 0, 1)
    at = put(side, at, 0, 4)
    at = golomb(side, at, 200, 8)
    head = side[: (at + 7) // 8].tobytes()
    return (b"\x02" + np.float32(1).tobytes() + b"\0\0" + head).ljust(1000, b"\x5a")


@pytest.mark.parametrize("count", [10, 200_000, 256_000, 999_999, 10**6, 2**33])
@pytest.mark.parametrize("ranks", [(0,), (15,)])
def test_a_kilobyte_cannot_make_the_server_allocate_100_megabytes(count, ranks):
    data = claims(count, ranks)
    tracemalloc.start()
    decode_or_refuse(data, LARGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def written(levels: Levels, level: int, shape: tuple[int, int]) -> bytes:
    none = np.zeros(sum(shape), np.uint8)
    plans = Plans(np.array([level]), np.zeros(1, np.int64), none, none, none)
    return write_levels(levels, Factors(np.zeros(1, np.int64)), shapes_of((shape,)), plans).tobytes()


def read(data: bytes, shape: tuple[int, int]) -> Levels:
    return read_levels(np.frombuffer(data, np.uint8), shapes_of((shape,)))[0]


def few() -> Levels:
    return Levels(np.array([3, 40, 77]), np.array([1, 900, 2]), np.array([True, False, True]))


def test_every_single_byte_appended_or_missing_is_noticed():
    data = written(few(), 9, (10, 10))
    assert read(data, (10, 10)).magnitudes.tolist() == [1, 900, 2]
    for wrong in (data + b"\0", data + b"\1", data[:-1]):
        with pytest.raises(WireError):
            read(wrong, (10, 10))


def test_a_payload_for_a_larger_tensor_is_refused():
    with pytest.raises(WireError):
        read(written(few(), 9, (10, 10)), (5, 10))


def test_padding_that_is_not_zero_is_refused():
    data = written(Levels(np.arange(3), np.ones(3, np.int64), np.zeros(3, bool)), 9, (10, 10))
    with pytest.raises(WireError, match="padding"):
        read(data[:-1] + bytes([data[-1] | 1]), (10, 10))


def test_unknown_forms_steps_and_left_over_bytes_are_named():
    for data, reason in ((b"\x03", "form"), (b"", "need 1"), (b"\x00\x00", "after"), (b"\x01\x00", "need")):
        with pytest.raises(WireError, match=reason):
            Ecsq().decode(memoryview(data), SPEC)
    good = honest(8.0, "stochastic")
    for step in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(WireError):
            Ecsq().decode(memoryview(good[:1] + np.float32(step).tobytes() + good[5:]), SPEC)
