"""What a codec makes of each kind of tensor: embeddings, recurrent kernels, convolutions, dense ones, vectors.

The tensors of a kind travel in a packet of their own, its real length less that of an empty one; `Ecsq` keeps the step
that it has for the whole update, so that a kind is as fine as it is in a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs import Codec
from fl_mobile.codecs.base import usual_examples
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, fp32_bytes

EMBEDDING, RECURRENT, CONVOLUTION, DENSE, VECTOR = "embedding", "recurrent", "convolution", "dense", "norm and bias"
_EMBEDDED = re.compile(r"(^|/)embeddings$")
_CELL = re.compile(r"(_cell[_\d]*/|recurrent_kernel$)")


@dataclass(frozen=True)
class OfKind:
    """One kind of tensor under one codec.

    Attributes:
        codec: Its name.
        kind: `kind_of` its tensors.
        parameters: Values of an update that are of it.
        packet_bytes: Mean of the updates.
        ratio: float32 bytes / packet bytes.
        bits_per_parameter: Of the packet.
        zeros: Share of decoded values that are 0.
        rows_untouched: Share of rows of two-dimensional tensors that the update left as they were: of an embedding,
            tokens that the device has not.
    """

    codec: str
    kind: str
    parameters: int
    packet_bytes: float
    ratio: float
    bits_per_parameter: float
    zeros: float
    rows_untouched: float

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for ``json.dumps``."""
        return asdict(self)


def kind_of(path: str, shape: Sequence[int]) -> str:
    """Returns what kind of tensor a variable is, by its path and shape.

    >>> kind_of("embedding/embeddings", (97, 8)), kind_of("gru/gru_cell/kernel", (8, 384)), kind_of("d/bias", (3,))
    ('embedding', 'recurrent', 'norm and bias')
    """
    if _EMBEDDED.search(path):
        return EMBEDDING
    if len(shape) < 2:
        return VECTOR
    if _CELL.search(path):
        return RECURRENT
    return CONVOLUTION if len(shape) > 2 else DENSE


def by_kind(codec: Codec, updates: Sequence[Tensors], spec: Spec, *, seed: int = 0) -> list[OfKind]:
    """Returns what ``codec`` makes of every kind that a model has, in order of the kinds.

    Args:
        codec: The codec.
        updates: At least one; all of ``spec``.
        spec: Of the model.
        seed: Of the codec's rounding.
    """
    held = [codec_for(codec, update, spec) for update in updates]
    kinds = {path: kind_of(path, tensor.shape) for path, tensor in spec.items()}
    out = []
    for kind in (EMBEDDING, RECURRENT, CONVOLUTION, DENSE, VECTOR):
        own = {path: tensor for path, tensor in spec.items() if kinds[path] == kind}
        if own:
            out.append(_of_kind(codec, held, kind, own, updates, seed))
    return out


def codec_for(codec: Codec, update: Tensors, spec: Spec) -> Codec:
    """Returns the codec with the step that it has for the whole update, where it has one."""
    if not isinstance(codec, Ecsq) or codec.absolute:
        return codec
    values = [np.ravel(update[path]).astype(np.float64) for path, tensor in spec.items() if tensor.trainable]
    flat = np.concatenate(values) if values else np.zeros(1)
    step = codec.step * float(np.sqrt(np.mean(np.square(flat))))
    return replace(codec, step=step, absolute=True) if step else codec


def _of_kind(
    codec: Codec, held: Sequence[Codec], kind: str, spec: Spec, updates: Sequence[Tensors], seed: int
) -> OfKind:
    sizes, zeros, untouched = [], [], []
    for number, (own, update) in enumerate(zip(held, updates, strict=True)):
        part = {path: update[path] for path in spec}
        packet = _packet(own, part, spec, seed, number)
        decoded = wire.unpack(packet, spec, own).tensors
        sizes.append(max(len(packet) - len(_packet(own, {}, {}, seed, number)), 1))
        zeros.append(np.mean(np.concatenate([np.ravel(value) == 0 for value in decoded.values()])))
        rows = [(value.reshape(len(value), -1) == 0).all(axis=1) for value in part.values() if value.ndim > 1]
        untouched.append(np.mean(np.concatenate(rows)) if rows else 0.0)
    parameters, mean = sum(tensor.size for tensor in spec.values()), float(np.mean(sizes))
    return OfKind(
        codec=codec.name,
        kind=kind,
        parameters=parameters,
        packet_bytes=mean,
        ratio=fp32_bytes(spec) / mean,
        bits_per_parameter=8 * mean / parameters,
        zeros=float(np.mean(zeros)),
        rows_untouched=float(np.mean(untouched)),
    )


def _packet(codec: Codec, part: Tensors, spec: Spec, seed: int, number: int) -> bytes:
    header = wire.Header(wire.UPDATE, 0, 0, usual_examples(codec))
    return wire.pack(header, part, spec=spec, codec=codec, rng=rng_for(seed, number, "measure"))
