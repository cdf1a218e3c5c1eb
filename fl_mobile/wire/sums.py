"""Packets of sums: what devices tell of their examples before round 1, where constants or vocabularies follow from it.

```
offset  size  field
0       4     magic "FLS1"
4       8     question: the first bytes of SHA-256 over names, lengths and kinds of its parts
12      p     the parts in order: numbers as float64, whole counts as pairs (zeros since the last, count) in LEB128
12+p    4     CRC-32 of everything before
```
All numbers are little endian. Lengths come from the question that both ends hold, never from the packet. The pairs of a
part end with the gap that reaches its end, without a count behind it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from fl_mobile.codecs.bits.reader import Reader, varint
from fl_mobile.errors import WireError

MAGIC = b"FLS1"
LARGEST, MOST_COUNT = 1e30, (1 << 31) - 1
"""Of a number, either sign, and of a count: what a sum of 2³² of them can still be told in."""

_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class Part:
    """A vector of a question.

    Attributes:
        name: What it is.
        length: Of the vector.
        counts: Whether it holds whole numbers from 0, mostly zeros.
    """

    name: str
    length: int
    counts: bool = False


Question = Sequence[Part]


def pack_sums(question: Question, values: Mapping[str, np.ndarray]) -> bytes:
    """Returns the packet of a device's sums: ``float64[length]`` or counts ``int64[length]`` by name."""
    body = b"".join(
        _counts(values[part.name]) if part.counts else values[part.name].astype("<f8").tobytes() for part in question
    )
    packet = MAGIC + _id(question) + body
    return packet + _CHECKSUM.pack(crc32(packet))


def unpack_sums(question: Question, packet: bytes) -> dict[str, np.ndarray]:
    """Returns what `pack_sums` packed.

    Raises:
        WireError: For any other bytes; nothing else is raised.
    """
    reader = Reader(packet)
    if bytes(reader.take(4)) != MAGIC:
        raise WireError("magic", f"expected {MAGIC!r}: no packet of sums")
    if len(packet) < 16 or crc32(packet[:-4]) != _CHECKSUM.unpack(packet[-4:])[0]:
        raise WireError("checksum", "CRC-32 does not match: the packet was damaged on its way")
    if bytes(reader.take(8)) != _id(question):
        raise WireError("question", "the packet answers another question")
    found = {part.name: _read(reader, part) for part in question}
    reader.take(4)
    reader.end()
    return found


def _id(question: Question) -> bytes:
    text = "\0".join(f"{part.name}/{part.length}/{int(part.counts)}" for part in question)
    return hashlib.sha256(text.encode()).digest()[:8]


def _counts(values: np.ndarray) -> bytes:
    at = np.flatnonzero(values)
    gaps = np.diff(np.concatenate([[-1], at, [len(values)]])) - 1
    pairs = [varint(gap) + varint(count) for gap, count in zip(gaps[:-1].tolist(), values[at].tolist(), strict=True)]
    return b"".join(pairs) + varint(int(gaps[-1]))


def _read(reader: Reader, part: Part) -> np.ndarray:
    if not part.counts:
        numbers = reader.array("<f8", part.length).astype(np.float64)
        if not (np.abs(numbers) <= LARGEST).all():  # NaN compares as false
            raise WireError("value", f"'{part.name}': a number is not finite, or beyond {LARGEST:g}")
        return numbers
    counts, at = np.zeros(part.length, np.int64), 0
    while True:
        at += reader.varint(part.length - at)
        if at == part.length:
            return counts
        counts[at] = reader.varint(MOST_COUNT)
        at += 1
