"""Packet v1: its layout to the byte, golden packets, and every way a header can be wrong."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from fl_mobile import wire
from fl_mobile.codecs import coded_tensors, parse_codec
from fl_mobile.errors import SpecMismatch, WireError
from fl_mobile.tensors import TensorSpec, fingerprint, fp32_bytes
from fl_mobile.wire import packet
from tests.fl_mobile.golden import golden_packet, golden_path
from tests.fl_mobile.samples import ROWS, SPEC, hashed, header, laplace, packed, philox


def resealed(packet: bytes | bytearray) -> bytes:
    """Returns the packet with a checksum that fits."""
    return bytes(packet[:-4]) + struct.pack("<I", zlib.crc32(packet[:-4]))


def changed(packet: bytes, offset: int, new: bytes) -> bytes:
    """Returns the packet with bytes replaced and the checksum corrected."""
    return resealed(packet[:offset] + new + packet[offset + len(new) :])


def reason(packet: bytes, text: str = "q8", spec=SPEC) -> str:
    """Returns the word a server counts the packet by."""
    with pytest.raises(WireError) as caught:
        wire.unpack(packet, spec, parse_codec(text))
    assert str(caught.value).startswith(caught.value.reason + ": ")
    return caught.value.reason


def documented_fields() -> dict[int, tuple[str, str]]:
    """Returns offset → (size, text) of the fixed part of the table in the module's docstring."""
    rows = re.findall(r"^(\S+) +(\d+|[a-z]) +(\S.*)$", packet.__doc__ or "", re.MULTILINE)
    return {int(offset): (size, text) for offset, size, text in rows if offset.isdigit() and size.isdigit()}


def test_every_byte_is_where_the_docstring_says():
    codec = parse_codec("q8")
    update = laplace()
    packet = wire.pack(wire.Header(wire.UPDATE, 5, 4, 77, 0.25), update, SPEC, codec, philox(0))
    fields = documented_fields()
    assert [o + int(fields[o][0]) for o in sorted(fields)] == [*sorted(fields)[1:], 40], "the table leaves a gap"

    def at(offset: int) -> bytes:
        return packet[offset : offset + int(fields[offset][0])]

    expected = {
        "magic": b"FLM1",
        "version": b"\x01",
        "kind": b"\x00",
        "flags": b"\x00\x00",
        "model fingerprint": fingerprint(SPEC).to_bytes(8, "little"),
        "codec id": zlib.crc32(b"q8").to_bytes(4, "little"),
        "round": (5).to_bytes(4, "little"),
        "base round": (4).to_bytes(4, "little"),
        "number of examples": (77).to_bytes(4, "little"),
        "mean training loss": b"\x00\x00\x80\x3e",
    }
    for (name, value), offset in zip(expected.items(), sorted(fields), strict=False):
        assert fields[offset][1].startswith(name)
        assert at(offset) == value
    coded = coded_tensors(SPEC, codec)
    exact = b"".join(update[p].astype("<f4").tobytes() for p in SPEC if p not in coded)
    payload = codec.encode({p: update[p] for p in coded}, philox(0))
    assert at(36) == len(payload).to_bytes(4, "little")
    assert packet[40 : 40 + len(exact)] == exact
    assert packet[40 + len(exact) : -4] == payload
    assert packet[-4:] == zlib.crc32(packet[:-4]).to_bytes(4, "little")
    assert wire.OVERHEAD_BYTES == 44
    assert len(packet) == wire.OVERHEAD_BYTES + len(exact) + len(payload)


def test_fingerprint_is_pinned():
    spec = {"dense/kernel": TensorSpec((2, 3)), "dense/bias": TensorSpec((3,))}
    assert fingerprint(spec) == 0x34D1E6C975285CC8
    others = (
        dict(reversed(spec.items())),
        {**spec, "dense/bias": TensorSpec((3,), trainable=False)},
        {**spec, "dense/bias": TensorSpec((3, 1))},
        {"dense/kernel": TensorSpec((2, 3)), "dense_1/bias": TensorSpec((3,))},
    )
    assert len({fingerprint(s) for s in (spec, *others)}) == 5


@pytest.mark.parametrize("text", ROWS)
def test_golden_packets_are_read_and_written_again(text):
    codec, path = parse_codec(text), golden_path(text)
    assert path.exists(), "no golden packet yet: python -m tests.fl_mobile.golden"
    old, new = path.read_bytes(), golden_packet(text)
    read, again = (wire.unpack(packet, SPEC, codec) for packet in (old, new))
    assert read.header == header()
    for tensor_path, value in hashed().items():
        a, b = read.tensors[tensor_path], again.tensors[tensor_path]
        if tensor_path not in coded_tensors(SPEC, codec):
            assert np.array_equal(a, value)
        assert np.array_equal(a, b)
    if "deflate" not in codec.name:  # zlib builds pack differently
        assert old == new


def test_a_golden_packet_that_changed_is_noticed():
    damaged = changed(golden_packet("q8"), 3000, b"\x55")
    codec = parse_codec("q8")
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(
            wire.unpack(damaged, SPEC, codec).tensors.values(),
            wire.unpack(golden_packet("q8"), SPEC, codec).tensors.values(),
            strict=True,
        )
    )


def test_each_way_to_be_wrong_has_its_own_reason():
    packet = packed(parse_codec("q8"), laplace())
    exact_bytes = 4 * (16 + 400 + 1)
    assert reason(b"") == "truncated"
    assert reason(packet[:43]) == "truncated"
    assert reason(changed(packet, 0, b"FLM2")) == "magic"
    assert reason(changed(packet, 4, b"\x02")) == "version"
    assert reason(changed(packet, 5, b"\x04")) == "version"
    assert reason(changed(packet, 6, b"\x01")) == "version"
    assert reason(packet[:-1] + bytes([packet[-1] ^ 1])) == "checksum"
    assert reason(packet[:2000] + bytes([packet[2000] ^ 1]) + packet[2001:]) == "checksum"
    assert reason(changed(packet, 8, b"\0" * 8)) == "fingerprint"
    assert reason(packet, spec={**SPEC, "conv/bias": TensorSpec((16,), trainable=False)}) == "fingerprint"
    assert reason(changed(packet, 16, b"\0" * 4)) == "codec"
    assert reason(packet, text="q7") == "codec"
    assert reason(changed(packet, 36, struct.pack("<I", 2**32 - 1))) == "truncated"
    assert reason(changed(packet, 36, struct.pack("<I", 0))) == "truncated"
    assert reason(resealed(packet[:-4] + b"\0" * 4 + packet[-4:])) == "trailing"
    assert reason(resealed(packet[:-8] + packet[-4:])) == "truncated"
    assert reason(changed(packet, 40, struct.pack("<f", np.nan))) == "value"
    assert reason(changed(packet, 40 + exact_bytes, struct.pack("<f", np.inf))) == "value"


def test_every_single_flipped_bit_is_noticed():
    spec = {"w": TensorSpec((40,))}
    packet = packed(parse_codec("q8"), laplace(spec), spec)
    for bit in range(8 * len(packet)):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            wire.unpack(bytes(damaged), spec, parse_codec("q8"))


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.5, 0.5), (1e300, np.inf), (-1e300, -np.inf), (np.inf, np.inf), (np.nan, np.nan)]
)
def test_any_loss_fits_the_header(loss, expected):
    packet = wire.pack(header(loss=loss), laplace(), SPEC, parse_codec("q8"), philox(0))
    assert np.array_equal(wire.unpack(packet, SPEC, parse_codec("q8")).header.loss, expected, equal_nan=True)


def test_a_count_of_examples_above_32_bits_saturates():
    packet = wire.pack(header(num_examples=2**40), laplace(), SPEC, parse_codec("q8"), philox(0))
    assert wire.unpack(packet, SPEC, parse_codec("q8")).header.num_examples == 2**32 - 1


def test_models_travel_as_packets_too():
    for kind in (wire.MODEL, wire.MODEL_DELTA):
        sent = replace(header(), kind=kind, base_round=2)
        packet = wire.pack(sent, laplace(), SPEC, parse_codec("none"), philox(0))
        assert wire.unpack(packet, SPEC, parse_codec("none")).header == sent
        assert len(packet) == fp32_bytes(SPEC) + wire.OVERHEAD_BYTES


def test_packing_what_does_not_fit_the_spec_says_which_tensor():
    update = laplace()
    with pytest.raises(SpecMismatch, match=r"missing \['head/bias'\]"):
        packed(parse_codec("q8"), {p: v for p, v in update.items() if p != "head/bias"})
    with pytest.raises(SpecMismatch, match=r"'scale' must be float32\[\], got float64\[\]"):
        packed(parse_codec("q8"), {**update, "scale": np.float64(0.0).reshape(())})
    with pytest.raises(SpecMismatch, match=r"'dense/kernel' must be float32\[41, 23\], got float32\[23, 41\]"):
        packed(parse_codec("q8"), {**update, "dense/kernel": update["dense/kernel"].T})
    with pytest.raises(SpecMismatch, match="model order"):
        packed(parse_codec("q8"), dict(reversed(update.items())))
