"""The committed vectors are what Python makes today, so what Java is held to is what the server reads."""

from __future__ import annotations

import base64
import json

import pytest

from fl_mobile.codecs import parse_codec
from tests.android_stub import vectors
from tests.android_stub.drawn import SPECS


def test_the_committed_packets_are_what_python_makes_today() -> None:
    committed = json.loads(vectors.PATH.read_text(encoding="utf-8"))
    fresh = vectors.vectors()
    assert committed["specs"] == fresh["specs"]
    heads = [[row[:4] for row in value["packets"]] for value in (committed, fresh)]
    assert heads[0] == heads[1], "rows are missing: python -m tests.android_stub.vectors writes them"
    for old, new in zip(committed["packets"], fresh["packets"], strict=True):
        if vectors.is_remade(old[0]):
            assert old == new
        else:  # zlib and low rank may differ on another machine; what was written stays readable
            packet = base64.b64decode(old[6])
            assert vectors.digest(packet) == old[4]
            assert vectors.decoded(packet, SPECS[old[1]], old[0]) == old[5]


@pytest.mark.parametrize("text", ["ecsq", "ecsq:step=2,rounding=rdo"])
def test_updates_whose_squares_leave_float32_are_coded(text: str) -> None:
    values = vectors.drawn(SPECS["two layers"], "huge", 0)
    codec = parse_codec(text)
    packet = vectors.wire.pack(vectors.header(), values, SPECS["two layers"], codec, vectors.philox(0))
    assert vectors.wire.unpack(packet, SPECS["two layers"], codec).header.round_num == 3
