"""`chain` builds a codec out of small stages, in an order that is checked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fl_mobile.codecs.base import Flat, Pack, Prune, Quantize, Stage
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.quantize import RAW
from fl_mobile.errors import ConfigError
from fl_mobile.tensors import Spec, Tensors, cut


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

    @property
    def contracts(self) -> bool:
        """True if the quantizer does; what is pruned is lost to the last bit, and no more than that."""
        return self.quantize.contracts

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
