"""Golden packets: bytes that this and every other implementation must read and write.

``python -m tests.fl_mobile.golden`` writes those that are missing. One that exists is never overwritten: a codec whose
bytes change needs a new wire name, or the file has to be deleted by hand, for a reason.
"""

from __future__ import annotations

import re
from pathlib import Path

from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from tests.fl_mobile.samples import ROWS, SPEC, hashed, header, philox

FOLDER = Path(__file__).parent / "golden"


def golden_path(text: str) -> Path:
    """Returns the file of a codec."""
    return FOLDER / (re.sub(r"[^a-z0-9.-]+", "_", parse_codec(text).name) + ".bin")


def golden_packet(text: str) -> bytes:
    """Returns what the file must hold."""
    return wire.pack(header(), hashed(), SPEC, parse_codec(text), philox(2026))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for row in ROWS:
        if not golden_path(row).exists():
            golden_path(row).write_bytes(golden_packet(row))
            print("wrote", golden_path(row).name)
