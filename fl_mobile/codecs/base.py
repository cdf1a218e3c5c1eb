"""The seam between an update and its bytes, and the stages that `chain` builds codecs of.

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

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np

from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.tensors import Spec, Tensors, TensorSpec


class Codec(Protocol):
    """Turns the coded tensors of one update into bytes and back.

    A codec that takes many small updates with one call has ``encode_each`` and ``decode_each`` as well, as `Ecsq` has,
    and gives the same bytes and numbers by them; packets of several rounds may be decoded together.

    Attributes:
        name: Text that `parse_codec` turns into this codec again.
        exact_up_to: Trainable tensors of at most this many elements travel as float32 beside the payload.
        unbiased: Whether the expectation of ``decode(encode(x))`` is ``x``.
        contracts: Whether what it loses of a real update is less than the update: ``E‖x − x̂‖² < ‖x‖²``. What both ends
            keep of an update, or feed back into the next, dies out only then; the law suite measures it.
    """

    @property
    def name(self) -> str: ...
    @property
    def wire_name(self) -> str: ...
    @property
    def exact_up_to(self) -> int: ...
    @property
    def unbiased(self) -> bool: ...
    @property
    def contracts(self) -> bool: ...

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
    @property
    def contracts(self) -> bool: ...

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


def codec_id(codec: Codec) -> int:
    """Returns the 32-bit id a packet carries: CRC-32 of the codec's UTF-8 ``wire_name``."""
    return zlib.crc32(codec.wire_name.encode())


def in_round(codec: Codec, round_num: int) -> Codec:
    """Returns the codec as packets of one round use it: `sketch` has another projection in each."""
    keyed = getattr(codec, "for_round", None)
    return codec if keyed is None else cast(Codec, keyed(round_num))


def of_client(codec: Codec, examples: int) -> Codec:
    """Returns the codec as a client with so many examples encodes with it; every decoder reads what it writes."""
    weighed = getattr(codec, "for_examples", None)
    return codec if weighed is None else cast(Codec, weighed(examples))


def usual_examples(codec: Codec) -> int:
    """Returns how many examples a client has that a codec's step is told for; 1 where it is everyone's."""
    return getattr(codec, "examples", 0) or 1


def norm_gain(codec: Codec, spec: Mapping[str, TensorSpec]) -> float:
    """Returns how much longer than an update of ``spec`` what is decoded of it can be; 1 where nobody says.

    Codecs that inflate norms are clipped where the norm is still the update's: on the client, before encoding. The
    server bounds what it decodes by this many clipping norms, so that nobody gains by not clipping.
    """
    gain = getattr(codec, "norm_gain", None)
    return 1.0 if gain is None else cast(float, gain(sum(tensor.size for tensor in spec.values())))


def coded_tensors(spec: Mapping[str, TensorSpec], codec: Codec) -> Spec:
    """Returns the part of ``spec`` the codec encodes: trainable tensors of more than ``exact_up_to`` elements."""
    return {path: t for path, t in spec.items() if t.trainable and t.size > codec.exact_up_to}
