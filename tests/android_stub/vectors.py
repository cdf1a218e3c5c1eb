"""What the Java client must read and write: `vectors.json`, of packets; see `rounds.py` for whole rounds.

``python -m tests.android_stub.vectors`` writes the file anew; `test_vectors.py` says whether it is what Python makes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors
from tests.android_stub.drawn import PATTERNS, SPECS, drawn
from tests.fl_mobile.samples import ALL, header, philox

PATH = Path(__file__).parent / "vectors.json"

ECSQ = (
    *("ecsq:rank=0", "ecsq:step=0.5,rank=0", "ecsq:step=40,rank=0", "ecsq:step=2,rounding=rdo,rank=0"),
    *("ecsq:step=0.3,rounding=rdo,rank=0", "ecsq:step=9,rounding=rdo,rank=0", "ecsq:step=2,rounding=nearest,rank=0"),
    "ecsq:step=2,examples=90,rounding=rdo,rank=0",
)
KEYS = range(4)


def digest(data: bytes) -> str:
    """Returns the first 16 digits of a SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def decoded(packet: bytes, spec: Spec, name: str) -> str:
    """Returns the digest of what a packet decodes to, the reason if it is refused."""
    try:
        return digest(values_of(wire.unpack(packet, spec, parse_codec(name)).tensors))
    except WireError as error:
        return error.reason


def values_of(tensors: Tensors) -> bytes:
    """Returns float32 end to end."""
    return b"".join(np.ascontiguousarray(value, "<f4").tobytes() for value in tensors.values())


def known() -> list[str]:
    """Returns the names of the codecs that the Java client knows."""
    return list(dict.fromkeys(parse_codec(text).name for text in (*ALL, *ECSQ)))


def is_remade(name: str) -> bool:
    """Whether every encoder writes the same bytes: zlib may pack otherwise, low rank may be found otherwise."""
    return "deflate" not in name and (not name.startswith("ecsq") or "rank=0" in name or "nearest" in name)


def rows() -> list[list[Any]]:
    """Returns codec, spec, pattern, key, digest of the packet, of what it decodes to, and the packet if needed."""
    out = []
    for name in known():
        for spec_name, spec in SPECS.items():
            for pattern in PATTERNS if name.startswith("ecsq") else PATTERNS[:2]:
                for key in KEYS if name in ECSQ else KEYS[:1]:
                    values = drawn(spec, pattern, key)
                    packet = wire.pack(header(key), values, spec, parse_codec(name), philox(key))
                    row = [name, spec_name, pattern, key, digest(packet), decoded(packet, spec, name)]
                    if is_remade(name):
                        out.append(row)
                    elif spec_name == "mixed" or (pattern == "rows and columns" and spec_name == "two layers"):
                        out.append([*row, base64.b64encode(packet).decode()])
    return out


def vectors() -> dict[str, Any]:
    """Returns the file's value."""
    specs = {
        name: {
            "tensors": [[path, list(t.shape), t.trainable] for path, t in spec.items()],
            "patterns": {pattern: digest(values_of(drawn(spec, pattern, 3))) for pattern in PATTERNS},
        }
        for name, spec in SPECS.items()
    }
    return {"specs": specs, "packets": rows()}


def as_text(value: dict[str, Any]) -> str:
    """Returns the file's text: a packet a line."""
    lines = ",\n".join(json.dumps(row) for row in value["packets"])
    return f'{{"specs": {json.dumps(value["specs"])},\n"packets": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    PATH.write_text(as_text(vectors()), encoding="utf-8")
    print("wrote", PATH)
