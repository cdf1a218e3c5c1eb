"""The seam between an update and its bytes, and `chain`, which builds a codec out of small stages.

```
Codec    whole update → bytes          what the wire calls; `ecsq` implements it directly
  ▲ chain(*stages)
Flat     tensors → one float32[n]      so that the stages below see one vector flat
Prune    float32[n] → float32[k]       plus side bytes that say which k        topk, threshold, dgc
Quantize float32[k] → bytes                                                    none, float16, q8 … q1, eden, qsgd …
Pack     bytes → bytes                 once, over all tensors together         deflate
```
A codec sees the whole update and not one tensor at a time, because the best ones share a step and their tables
between tensors. A row of a table is a stage or a codec; `chain` checks that neighbours fit.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from fl_mobile.errors import ConfigError, WireError
from fl_mobile.tensors import Spec, Tensors, TensorSpec, cut


class Reader:
    """A cursor over received bytes: the one checked gate through which every decoder reads.

    Counts always come from the spec or from a bounded header field; reading past the end is a `WireError`.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not been read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        """Returns the next ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise WireError("truncated", f"need {count} bytes at offset {self._at}, {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def peek(self, count: int) -> memoryview:
        """Returns the next ``count`` bytes without moving on."""
        view = self.take(count)
        self._at -= count
        return view

    def array(self, dtype: str, count: int) -> np.ndarray:
        """Returns the next ``count`` items of ``dtype`` (little endian, e.g. ``"<f4"``), not copied."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)

    def finite(self, dtype: str, count: int) -> np.ndarray:
        """Returns ``float32[count]`` read as ``dtype``, a view where that is float32; NaN or Inf is a `WireError`."""
        values = self.array(dtype, count).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise WireError("value", f"NaN or Inf among {count} {dtype} values")
        return values

    def varint(self, limit: int) -> int:
        """Returns an unsigned LEB128 number of at most ``limit``."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit:
                    raise WireError("value", f"number {value} is above its limit {limit}")
                return value
        raise WireError("value", "number is longer than 5 bytes")

    def end(self) -> None:
        """Raises `WireError` if bytes are left over."""
        if self.left:
            raise WireError("trailing", f"{self.left} bytes after the last tensor")


def varint(value: int) -> bytes:
    """Returns ``value`` as unsigned LEB128: seven bits a byte, low first, the high bit says more follow.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Codec(Protocol):
    """Turns the coded tensors of one update into bytes and back.

    Attributes:
        name: Text that `parse_codec` turns into this codec again.
        exact_up_to: Trainable tensors of at most this many elements travel as float32 beside the payload.
        unbiased: Whether the expectation of ``decode(encode(x))`` is ``x``.
    """

    @property
    def name(self) -> str: ...
    @property
    def wire_name(self) -> str: ...
    @property
    def exact_up_to(self) -> int: ...
    @property
    def unbiased(self) -> bool: ...

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the payload for finite ``float32`` tensors, which are not modified."""
        ...

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns ``float32`` tensors of the spec's shapes; raises `WireError` and nothing else."""
        ...


@dataclass(frozen=True)
class Flat:
    """Joins all coded tensors, in order, into one vector: top-k then picks over the whole update, not per tensor."""

    name: str = "flat"
    kind: Literal["flat"] = "flat"


class Prune(Protocol):
    """Keeps some values; ``encode`` returns side bytes that name them and the kept values in order."""

    @property
    def kind(self) -> Literal["prune"]: ...
    @property
    def name(self) -> str: ...

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]: ...
    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Reads the side bytes; returns the kept positions, ``int64[k]`` rising, within ``count`` values."""
        ...

    def max_bytes(self, count: int) -> int: ...


class Quantize(Protocol):
    """Turns values into bytes."""

    @property
    def kind(self) -> Literal["quantize"]: ...
    @property
    def name(self) -> str: ...
    @property
    def unbiased(self) -> bool: ...

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes | memoryview: ...
    def decode(self, reader: Reader, count: int) -> np.ndarray: ...
    def max_bytes(self, count: int) -> int: ...


class Pack(Protocol):
    """Shrinks bytes without loss; ``decode`` never returns more than ``limit`` bytes."""

    @property
    def kind(self) -> Literal["pack"]: ...
    @property
    def name(self) -> str: ...

    def encode(self, data: bytes) -> bytes: ...
    def decode(self, data: memoryview, limit: int) -> bytes: ...
    def max_bytes(self, count: int) -> int:
        """Length that ``count`` bytes take at most once packed."""
        ...


Stage = Flat | Prune | Quantize | Pack


@dataclass(frozen=True)
class Chain:
    """A codec made of stages; build it with `chain`.

    Payload: for every tensor in order (or once, for the joined vector, if ``flat``) the prune stages' side bytes,
    then the quantized values; the whole run of bytes then goes through each pack stage.
    """

    prunes: tuple[Prune, ...]
    quantize: Quantize
    packs: tuple[Pack, ...]
    exact_up_to: int = 256
    flat: tuple[Flat, ...] = ()

    @property
    def name(self) -> str:
        """The stages' names joined by ``+``."""
        stages: tuple[Stage, ...] = (*self.flat, *self.prunes, self.quantize, *self.packs)
        return "+".join(stage.name for stage in stages)

    @property
    def wire_name(self) -> str:
        """What the packet's codec id is made of: all that a decoder must know."""
        return self.name

    @property
    def unbiased(self) -> bool:
        """True if every stage is."""
        return self.quantize.unbiased and not self.prunes

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the payload."""
        parts: list[bytes | memoryview] = []
        vectors = [tensor.ravel() for tensor in delta.values()]
        if self.flat and vectors:
            vectors = [np.concatenate(vectors)]
        for values in vectors:
            for prune in self.prunes:
                side, values = prune.encode(values)
                parts.append(side)
            parts.append(self.quantize.encode(values, rng))
        payload = b"".join(parts)
        for pack in self.packs:
            payload = pack.encode(payload)
        return payload

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the tensors; sizes are bounded by ``spec`` before anything is inflated."""
        sizes = [t.size for t in spec.values()]
        counts = [sum(sizes)] if self.flat and sizes else sizes
        reader = Reader(self._unpack(payload, sum(map(self._max_bytes, counts))) if self.packs else payload)
        vectors = [self._decode_vector(reader, count) for count in counts]
        reader.end()
        if self.flat and sizes:
            return cut(vectors[0], spec)
        return {path: values.reshape(t.shape) for (path, t), values in zip(spec.items(), vectors, strict=True)}

    def _unpack(self, payload: memoryview, limit: int) -> memoryview:
        limits = [limit]  # after no pack stage, after the first, …: incompressible bytes grow a little in each
        for pack in self.packs:
            limits.append(pack.max_bytes(limits[-1]))
        for pack, most in zip(reversed(self.packs), reversed(limits[:-1]), strict=True):
            payload = memoryview(pack.decode(payload, most))
        return payload

    def _decode_vector(self, reader: Reader, size: int) -> np.ndarray:
        kept: list[np.ndarray] = []
        count = size
        for prune in self.prunes:
            kept.append(prune.decode(reader, count))
            count = len(kept[-1])
        values = self.quantize.decode(reader, count)
        for index, positions in zip(reversed(range(len(kept))), reversed(kept), strict=True):
            full = np.zeros(len(kept[index - 1]) if index else size, np.float32)
            full[positions] = values
            values = full
        return values

    def _max_bytes(self, count: int) -> int:
        return sum(p.max_bytes(count) for p in self.prunes) + self.quantize.max_bytes(count)


_ORDER = ("flat", "prune", "quantize", "pack")


def chain(*stages: Stage) -> Chain:
    """Returns the codec that runs the stages in order.

    A chain without a quantize stage sends its values as raw float32.

    Raises:
        ConfigError: Stages out of order (flat → prune → quantize → pack), or two of flat or quantize.
    """
    from fl_mobile.codecs.quantize import RAW

    kinds = [stage.kind for stage in stages]
    names = "+".join(stage.name for stage in stages)
    for before, after in itertools.pairwise(kinds):
        if _ORDER.index(before) > _ORDER.index(after):
            raise ConfigError(
                f"codec '{names}': a {after} stage cannot follow a {before} stage; the order is {' → '.join(_ORDER)}"
            )
    for kind in ("flat", "quantize"):
        if kinds.count(kind) > 1:
            raise ConfigError(f"codec '{names}': there can be one {kind} stage, got {kinds.count(kind)}")
    pick = {kind: tuple(s for s, k in zip(stages, kinds, strict=True) if k == kind) for kind in _ORDER}
    return Chain(pick["prune"], (pick["quantize"] or (RAW,))[0], pick["pack"], flat=pick["flat"])  # type: ignore[arg-type]


def codec_id(codec: Codec) -> int:
    """Returns the 32-bit id a packet carries: CRC-32 of the codec's UTF-8 ``wire_name``."""
    return zlib.crc32(codec.wire_name.encode())


def coded_tensors(spec: Mapping[str, TensorSpec], codec: Codec) -> Spec:
    """Returns the part of ``spec`` the codec encodes: trainable tensors of more than ``exact_up_to`` elements."""
    return {path: t for path, t in spec.items() if t.trainable and t.size > codec.exact_up_to}
