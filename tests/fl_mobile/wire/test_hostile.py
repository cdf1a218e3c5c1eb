"""Bytes from people who mean harm: the server gets tensors of its spec or a WireError, in bounded memory."""

from __future__ import annotations

import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from fl_mobile import wire
from fl_mobile.codecs import codec_id, coded_tensors, parse_codec
from fl_mobile.codecs.bits.positions import decode_positions, encode_positions
from fl_mobile.codecs.bits.reader import Reader, varint
from fl_mobile.errors import WireError
from fl_mobile.tensors import TensorSpec, fingerprint
from tests.fl_mobile.samples import ALL, SPEC, laplace, packed, philox

pytestmark = pytest.mark.filterwarnings("error")


def mutated(packet: bytes, rng: np.random.Generator) -> bytes:
    """Returns a damaged copy with a correct checksum; the header's identity fields mostly survive."""
    data = bytearray(packet[:-4])
    first = 36 if rng.random() < 0.9 else 0
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(first, len(data)))
        match int(rng.integers(0, 7)):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del data[at : at + int(rng.integers(1, 20))]
            case 3:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            case 4:
                data[at : at + 8] = rng.bytes(8)
            case 5:
                data[at : at + 4] = struct.pack("<f", rng.choice([np.nan, np.inf, 3.4e38, -3.4e38, -1.0, 1e-45]))
            case 6:
                source = int(rng.integers(first, len(data)))
                data[at : at + 16] = data[source : source + 16]
        if len(data) <= 40:
            break
    if rng.random() < 0.7 and len(data) > 40:  # keep the length honest, so that damage reaches the codec
        exact = 4 * sum(t.size for p, t in SPEC.items() if p in ("conv/bias", "norm/moving_variance", "scale"))
        data[36:40] = struct.pack("<I", max(0, len(data) - 40 - exact))
    return bytes(data) + struct.pack("<I", zlib.crc32(data))


def attack(text: str, count: int) -> int:
    """Returns how many of ``count`` damaged packets were still well formed."""
    codec, rng, accepted = parse_codec(text), philox(zlib.crc32(text.encode())), 0
    packet = packed(codec, laplace())
    for _ in range(count):
        try:
            tensors = wire.unpack(mutated(packet, rng), SPEC, codec).tensors
        except WireError:
            continue
        accepted += 1
        assert list(tensors) == list(SPEC)
        for path, value in tensors.items():
            assert value.shape == SPEC[path].shape
            assert value.dtype == np.float32
            assert np.isfinite(value).all()
    return accepted


@pytest.mark.parametrize("text", ALL)
def test_mutated_packets_raise_nothing_but_wire_errors(text):
    assert len(ALL) * 200 >= 5_000
    assert attack(text, 200) < 200


@pytest.mark.slow
@pytest.mark.parametrize("text", ALL)
def test_fifty_thousand_mutated_packets(text):
    assert attack(text, -(-50_000 // len(ALL))) > 0


@pytest.mark.parametrize("text", ALL)
def test_random_payloads_raise_nothing_but_wire_errors(text):
    codec, coded = parse_codec(text), coded_tensors(SPEC, parse_codec(text))
    rng = philox(1)
    for length in (*range(40), 100, 1000):
        for payload in (rng.bytes(length), b"\0" * length, b"\xff" * length):
            try:
                codec.decode(memoryview(payload), coded)
            except WireError:
                continue


# A model of 1.2 million parameters (4.8 MB as float32), the size of the demo's.
LARGE = {"dense/kernel": TensorSpec((9216, 128)), "head/kernel": TensorSpec((128, 100))}


def sealed(payload: bytes, text: str) -> bytes:
    """Returns a well-formed packet around any payload."""
    codec = parse_codec(text)
    head = struct.pack(
        "<4sBBHQIIIIfI", b"FLM1", 1, 0, 0, fingerprint(LARGE), codec_id(codec), 3, 3, 9, 0.5, len(payload)
    )
    return head + payload + struct.pack("<I", zlib.crc32(head + payload))


def lies(text: str) -> dict[str, bytes]:
    """Returns small payloads that claim to be large."""
    count = sum(t.size for t in LARGE.values())
    most = varint(count)
    return {
        "noise": philox(5).bytes(1000),
        "ones": b"\xff" * 1000,
        "bitmap count": b"\x00" + most + b"\xff" * 990,
        "gap count, r 0": b"\x01" + most + b"\x00" + b"\xff" * 990,
        "gap count, r 31": b"\x01" + most + b"\x1f" + b"\xff" * 990,
        "zero gaps": b"\x01" + varint(7000) + b"\x00" + b"\xff" * 900,
        "varint without end": b"\x80" * 1000,
        "counts after a scale": b"\0\0\x80\x3f\x01" + most + b"\x00" + b"\xff" * 980,
        "bomb": zlib.compress(b"\0" * 900_000, 9),
        "bomb of ones": zlib.compress(b"\x01" + most + b"\x00" + b"\xff" * 900_000, 9),
        "bomb in a bomb": zlib.compress(zlib.compress(b"\0" * 100_000_000, 9), 9),
    }


@pytest.mark.parametrize("text", ALL)
def test_a_kilobyte_cannot_make_the_server_allocate_100_megabytes(text):
    codec = parse_codec(text)
    for name, payload in lies(text).items():
        packet = sealed(payload, text)
        tracemalloc.start()
        try:
            wire.unpack(packet, LARGE, codec)
        except WireError:
            pass
        finally:
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak_bytes < 100e6, f"{name}: {peak_bytes / 1e6:.0f} MB"


@pytest.mark.parametrize("text", [t for t in ALL if "deflate" in parse_codec(t).name])
def test_a_zip_bomb_stops_at_the_size_the_spec_allows(text):
    bomb = zlib.compress(b"\0" * 60_000_000, 9)
    packet = sealed(bomb, text)
    tracemalloc.start()
    with pytest.raises(WireError, match="inflates past"):
        wire.unpack(packet, LARGE, parse_codec(text))
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


def test_inflated_bytes_must_end_where_the_stream_ends():
    spec = {"w": TensorSpec((300,))}
    codec, raw = parse_codec("none+deflate"), b"\0" * 1200
    for payload, reason in (
        (zlib.compress(raw) + b"x", "inflate"),
        (zlib.compress(raw)[:-3], "inflate"),
        (zlib.compress(raw + b"\0"), "size"),
        (zlib.compress(raw[:-1]), "truncated"),
        (b"", "inflate"),
        (raw, "inflate"),
    ):
        with pytest.raises(WireError) as caught:
            codec.decode(memoryview(payload), spec)
        assert caught.value.reason == reason
    assert not codec.decode(memoryview(zlib.compress(raw)), spec)["w"].any()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 1000, 4099])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.3, 0.9, 1.0])
def test_positions_round_trip_within_their_bound(size, density):
    keep = np.flatnonzero(philox(size).random(size) < density)
    data = encode_positions(keep, size)
    reader = Reader(data)
    assert np.array_equal(decode_positions(reader, size), keep)
    reader.end()
    assert len(data) <= 6 + (size + 7) // 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x02\x01", "value"),
        (b"\x00\x01\x00\x00", "value"),  # says one, marks none
        (b"\x00\x08\xff\xff", "value"),  # 16 marks, header says 8
        (b"\x00\x11\xff\xff", "value"),  # 17 of 16
        (b"\x01\x01\x20\x80", "value"),  # r = 32
        (b"\x01\x02\x00\x80", "truncated"),  # one end of two
        (b"\x01\x01\x00\x00\x00", "truncated"),  # a quotient that never ends
        (b"\x01\x01\x1f\x80\xff\xff\xff\xff", "value"),  # gap 2³¹ − 1
        (b"\x01\x01\x00\x00\x00\x80", "value"),  # position 16 of 16
        (b"\x01\x01\x00\x00\x00\x00\x80", "truncated"),  # the end bit stands behind all positions
        (b"\x01\x80\x80\x80\x80\x80\x01", "value"),  # a count of six bytes
    ],
)
def test_positions_that_lie_are_refused(data, reason):
    with pytest.raises(WireError) as caught:
        decode_positions(Reader(data), 16)
    assert caught.value.reason == reason


def test_no_pickle_anywhere_on_the_update_path():
    import pathlib

    import fl_mobile

    for source in pathlib.Path(fl_mobile.__file__).parent.rglob("*.py"):
        text = source.read_text()
        assert not re.search(r"import c?pickle\b|from c?pickle\b", text), source
        assert "allow_pickle=True" not in text, source
