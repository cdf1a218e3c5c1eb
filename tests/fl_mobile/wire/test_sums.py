"""Packets of sums: what goes in comes out, and other bytes are a WireError and nothing else."""

from __future__ import annotations

import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.errors import WireError
from fl_mobile.wire.sums import LARGEST, MOST_COUNT, Part, pack_sums, unpack_sums

QUESTION = (Part("sums", 3), Part("words", 9, counts=True))


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", crc32(body))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-LARGEST, LARGEST), min_size=3, max_size=3),
    st.lists(st.sampled_from([0, 0, 0, 1, 300, MOST_COUNT]), min_size=9, max_size=9),
)
def test_what_goes_in_comes_out_to_the_bit(numbers: list[float], counts: list[int]):
    values = {"sums": np.array(numbers), "words": np.array(counts, np.int64)}
    found = unpack_sums(QUESTION, pack_sums(QUESTION, values))
    assert all(np.array_equal(found[name], values[name]) for name in values)


def test_golden_bytes():
    values = {"sums": np.array([1.0, 0.0, -2.5]), "words": np.array([0, 0, 5, 1, 0, 0, 0, 0, 0])}
    packet = pack_sums(QUESTION, values)
    assert packet[:4] == b"FLS1"
    assert packet[12:].hex() == (
        "000000000000f03f000000000000000000000000000004c0" + "0205" + "0001" + "05" + packet[-4:].hex()
    )
    assert pack_sums(QUESTION[1:], {"words": np.zeros(9, np.int64)})[12:-4] == b"\x09", "nothing held is one byte"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2 * LARGEST])
def test_numbers_that_no_sum_can_hold_are_refused(number: float):
    values = {"sums": np.array([0.0, number, 0.0]), "words": np.zeros(9, np.int64)}
    with pytest.raises(WireError, match="'sums': a number is not finite"):
        unpack_sums(QUESTION, pack_sums(QUESTION, values))


def test_a_packet_of_another_question_or_a_damaged_one_is_told_apart():
    values = {"sums": np.zeros(3), "words": np.zeros(9, np.int64)}
    packet = pack_sums(QUESTION, values)
    for other, reason in (
        (packet[:-1] + bytes([packet[-1] ^ 1]), "checksum"),
        (sealed(b"FLM1" + packet[4:-4]), "magic"),
        (
            pack_sums((Part("sums", 3), Part("letters", 9, counts=True)), values | {"letters": values["words"]}),
            "question",
        ),
        (b"", "truncated"),
    ):
        with pytest.raises(WireError) as told:
            unpack_sums(QUESTION, other)
        assert told.value.reason == reason


def test_hostile_bytes_are_wire_errors_and_nothing_else():
    rng = np.random.default_rng(0)
    packet = pack_sums(QUESTION, {"sums": np.arange(3.0), "words": np.arange(9)})
    refused = 0
    for _ in range(3000):
        body = bytearray(packet[:-4])
        at = int(rng.integers(12, len(body)))
        body[at : at + int(rng.integers(0, 4))] = rng.bytes(int(rng.integers(0, 6)))
        try:
            found = unpack_sums(QUESTION, sealed(bytes(body)))
        except WireError:
            refused += 1
        else:
            assert found["words"].shape == (9,)
            assert found["words"].min() >= 0
            assert np.isfinite(found["sums"]).all()
    assert refused > 500
