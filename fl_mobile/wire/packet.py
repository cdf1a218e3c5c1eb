"""Packet v1: the only thing that passes between phone and server, in either direction.

```
offset  size  field
0       4     magic "FLM1"
4       1     version, 1
5       1     kind: 0 update (phone → server), 1 whole model, 2 model delta, 3 sums of rounds (server → phone)
6       2     flags, 0
8       8     model fingerprint, see `tensors.fingerprint`
16      4     codec id: CRC-32 of the codec's wire name
20      4     round the packet belongs to
24      4     base round: the model version a delta is relative to; equals round for a whole model
28      4     number of examples behind an update; 0 in a model
32      4     mean training loss, float32; NaN if not measured
36      4     payload length p
40      e     exact tensors: float32, in spec order (non-trainable and small ones; which ones the spec and codec say)
40+e    p     the codec's payload: all other tensors
40+e+p  4     CRC-32 of everything before
```
All numbers are little endian. A packet carries no shapes, names or dtypes: those come from the spec both ends hold,
so nothing in it can make the server allocate more than the spec says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fl_mobile.codecs.base import Codec, codec_id, coded_tensors, in_round, of_client
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import WireError
from fl_mobile.seeds import philox
from fl_mobile.tensors import Spec, Tensors, check_finite, check_fits, cut, fingerprint, not_finite
from fl_mobile.wire.outcomes import attempt, replaced, those_left

try:
    from zlib_ng.zlib_ng import crc32  # the same numbers 20 times as fast: raw packets cost little else
except ImportError:
    from zlib import crc32

MAGIC, VERSION = b"FLM1", 1
UPDATE, MODEL, MODEL_DELTA, MODEL_SUMS = 0, 1, 2, 3
_HEADER = struct.Struct("<4sBBHQIIIIfI")
_CHECKSUM, _LOSS = struct.Struct("<I"), struct.Struct("<f")
OVERHEAD_BYTES = _HEADER.size + _CHECKSUM.size
"""Bytes of every packet that are neither exact tensors nor payload."""


@dataclass(frozen=True)
class Header:
    """What a packet says about itself; see the layout above."""

    kind: int
    round_num: int
    base_round: int
    num_examples: int = 0
    loss: float = float("nan")


class Packet(NamedTuple):
    """A packet that passed every check: header and decoded float32 tensors in spec order."""

    header: Header
    tensors: Tensors


@dataclass(frozen=True)
class Layout:
    """What all packets of one spec and codec have in common; who packs or unpacks many makes it once."""

    spec: Spec
    codec: Codec

    @cached_property
    def coded(self) -> Spec:
        """The tensors in the payload."""
        return coded_tensors(self.spec, self.codec)

    @cached_property
    def exact(self) -> Spec:
        """The tensors before it."""
        return {path: tensor for path, tensor in self.spec.items() if path not in self.coded}

    @cached_property
    def _exact_values(self) -> int:
        return sum(tensor.size for tensor in self.exact.values())

    @cached_property
    def fingerprint(self) -> int:
        """The model's."""
        return fingerprint(self.spec)

    @cached_property
    def codec_id(self) -> int:
        """The codec's."""
        return codec_id(self.codec)

    def pack(self, header: Header, tensors: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the packet that carries ``tensors``; raises as `pack`."""
        check_fits(tensors, self.spec, "cannot pack")
        check_finite(tensors, "in the update to be sent")
        codec = of_client(in_round(self.codec, header.round_num), header.num_examples)
        return self.seal(header, tensors, codec.encode({path: tensors[path] for path in self.coded}, rng))

    def pack_each(self, headers: Sequence[Header], updates: Sequence[Tensors], keys: Sequence[int]) -> list[bytes]:
        """Returns what `pack` returns of each; a codec with ``encode_each`` makes the payloads together.

        Args:
            headers: Of one round.
            keys: Of each one's generator, `seeds.philox` of it.
        """
        codec = in_round(self.codec, headers[0].round_num)
        together = getattr(codec, "encode_each", None)
        if together is None:
            each = zip(headers, updates, map(philox, keys), strict=True)
            return [self.pack(*one) for one in each]
        rows = np.empty((len(updates), sum(tensor.size for tensor in self.coded.values())), np.float32)
        for row, tensors in zip(rows, updates, strict=True):
            check_fits(tensors, self.spec, "cannot pack")
            if self.coded:
                np.concatenate([tensors[path].ravel() for path in self.coded], out=row)
        if self.exact or not_finite({"coded": rows}):  # else one look at all of them has been enough
            for tensors in updates:
                check_finite(tensors, "in the update to be sent")
        payloads = together(rows, self.coded, keys, [header.num_examples for header in headers])
        return [self.seal(*packet) for packet in zip(headers, updates, payloads, strict=True)]

    def seal(self, header: Header, tensors: Tensors, payload: bytes) -> bytes:
        """Returns the packet of a payload that is there already; of ``tensors`` the exact ones travel beside it."""
        exact = b"".join([tensors[path].astype("<f4", copy=False).tobytes() for path in self.exact])
        try:
            loss = _LOSS.unpack(_LOSS.pack(header.loss))[0]
        except OverflowError:  # past float32; servers leave Inf out of the mean
            loss = math.copysign(math.inf, header.loss)
        head = _HEADER.pack(
            *(MAGIC, VERSION, header.kind, 0, self.fingerprint, self.codec_id, header.round_num, header.base_round),
            *(min(header.num_examples, 2**32 - 1), loss, len(payload)),
        )
        checksum = crc32(payload, crc32(exact, crc32(head)))
        return b"".join((head, exact, payload, _CHECKSUM.pack(checksum)))

    def header(self, packet: bytes) -> Header:
        """Returns what a packet says of itself, its checksum, model and codec checked, nothing decoded.

        Raises:
            WireError: It is damaged, or of another model or codec.
        """
        if len(packet) < OVERHEAD_BYTES:
            raise WireError("truncated", f"a packet has at least {OVERHEAD_BYTES} bytes, got {len(packet)}")
        (crc,) = _CHECKSUM.unpack_from(packet, len(packet) - _CHECKSUM.size)
        magic, version, kind, flags, model, codec_tag, round_num, base, examples, loss, _ = _HEADER.unpack_from(packet)
        if magic != MAGIC:
            raise WireError("magic", f"expected {MAGIC!r}, got {magic!r}: not an fl-mobile packet")
        if version != VERSION or flags or kind > MODEL_SUMS:
            raise WireError("version", f"expected version {VERSION}, flags 0, kind ≤ 3; got {version}, {flags}, {kind}")
        if crc32(memoryview(packet)[: -_CHECKSUM.size]) != crc:
            raise WireError("checksum", "CRC-32 does not match: the packet was damaged on its way")
        if model != self.fingerprint:
            raise WireError("fingerprint", f"made for another model ({model:016x}, expected {self.fingerprint:016x})")
        if codec_tag != self.codec_id:
            raise WireError("codec", f"encoded with codec id {codec_tag:08x}, this round uses '{self.codec.name}'")
        return Header(kind=kind, round_num=round_num, base_round=base, num_examples=examples, loss=loss)

    def unpack(self, packet: bytes, header: Header | None = None) -> Packet:
        """Returns header and tensors; raises as `unpack`.

        Args:
            header: What `header` returned of the same packet, for those who asked it before: not checked again.
        """
        header, exact, payload, reader = self._parts(packet, header)
        decoded = in_round(self.codec, header.round_num).decode(payload, self.coded)
        reader.end()
        return Packet(header, self._checked(decoded, exact))

    def unpack_each(self, packets: Sequence[bytes], headers: Sequence[Header]) -> list[Packet | WireError]:
        """Returns what `unpack` returns or raises of each packet; a codec with ``decode_each`` decodes them together.

        Args:
            headers: What `header` returned of each.
        """
        together = getattr(self.codec, "decode_each", None)
        if together is None:
            return [attempt(self.unpack, *one) for one in zip(packets, headers, strict=True)]
        opened = [attempt(self._parts, *one) for one in zip(packets, headers, strict=True)]
        whole = those_left(opened)
        rows, faults = together([payload for _, _, payload, _ in whole], self.coded)
        look = bool(self.exact) or not_finite({"coded": rows}) is not None

        def packet_of(at: int) -> Packet:
            if at in faults:
                raise faults[at]
            header, exact, _, reader = whole[at]
            reader.end()
            tensors = cut(rows[at], self.coded)
            return Packet(header, self._checked(tensors, exact) if look else tensors)

        return replaced(opened, [attempt(packet_of, at) for at in range(len(whole))])

    def _checked(self, decoded: Tensors, exact: Tensors) -> Tensors:
        tensors = {path: decoded[path] if path in self.coded else exact[path] for path in self.spec}
        if path := not_finite(tensors):
            raise WireError("value", f"tensor '{path}' decodes to NaN or Inf")
        return tensors

    def open(self, packet: bytes) -> tuple[Header, Tensors, memoryview]:
        """Returns header, exact tensors and payload of a packet that is not damaged, nothing decoded.

        Raises:
            WireError: It is damaged, of another model or codec, or its parts have other lengths.
        """
        header, exact, payload, reader = self._parts(packet)
        reader.end()
        return header, exact, payload

    def _parts(self, packet: bytes, header: Header | None = None) -> tuple[Header, Tensors, memoryview, Reader]:
        header = header or self.header(packet)
        reader = Reader(memoryview(packet)[: -_CHECKSUM.size])
        payload_bytes = _HEADER.unpack(reader.take(_HEADER.size))[-1]
        exact: Tensors = {}
        if self.exact:
            exact = cut(reader.array("<f4", self._exact_values).astype(np.float32, copy=False), self.exact)
        return header, exact, reader.take(payload_bytes), reader


def kind_of(packet: bytes) -> int:
    """Returns the kind a packet says it is of, −1 if it is too short to say; nothing else of it has been looked at."""
    return packet[5] if len(packet) > 5 else -1


def pack(header: Header, tensors: Tensors, spec: Spec, codec: Codec, rng: np.random.Generator) -> bytes:
    """Returns the packet that carries ``tensors``.

    Raises:
        SpecMismatch: The tensors are not those of ``spec``.
        DivergedError: A tensor holds NaN or Inf.
    """
    return Layout(spec, codec).pack(header, tensors, rng)


def unpack(packet: bytes, spec: Spec, codec: Codec) -> Packet:
    """Returns header and tensors of a packet for this spec and codec; the tensors may be views of it, not writable.

    Raises:
        WireError: For any other bytes; nothing else is raised.
    """
    return Layout(spec, codec).unpack(packet)
