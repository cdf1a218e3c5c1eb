"""Small real updates, and every codec the tables hold, for the tests of the update path."""

from __future__ import annotations

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs import CODECS, PRESETS, STAGES
from fl_mobile.codecs.base import Codec
from fl_mobile.tensors import Spec, Tensors, TensorSpec

SPEC: Spec = {
    "conv/kernel": TensorSpec((3, 3, 4, 16)),
    "conv/bias": TensorSpec((16,)),
    "norm/moving_variance": TensorSpec((400,), trainable=False),
    "scale": TensorSpec(()),
    "none": TensorSpec((0, 5)),
    "dense/kernel": TensorSpec((41, 23)),
    "head/bias": TensorSpec((257,)),
}
"""A kernel, a matrix and a long vector are coded; statistics, a scalar, an empty and a short tensor are not."""

COMBINATIONS = (
    *("flat+eden:0.1", "flat+eden:2", "flat+eden:4", "eden:0.5", "qsgd:1", "qsgd:300", "flat+terngrad", "q1:nearest"),
    *("sketch:k=1024,bits=4", "sketch:k=64,bits=2,seed=7", "sketch:k=512,width=14,step=0.01"),
    *("topk:0.5+topk:0.2+q4:nearest+deflate:9", "threshold:1+sign", "dgc:0.05+terngrad+deflate", "q3+deflate+deflate"),
)
ROWS = tuple(
    dict.fromkeys((*(row.example for row in STAGES.values()), *(row.example for row in CODECS.values()), *PRESETS))
)
"""One text for every row of every codec table."""
ALL = tuple(dict.fromkeys((*ROWS, *COMBINATIONS)))


def philox(key: int) -> np.random.Generator:
    """Returns a generator of its own for a test."""
    return np.random.Generator(np.random.Philox(key=key))


def laplace(spec: Spec = SPEC, key: int = 0) -> Tensors:
    """Returns a heavy-tailed update with a third of exact zeros, as real ones have."""
    rng = philox(key)
    return {
        path: np.where(rng.random(t.shape) < 1 / 3, 0, rng.laplace(size=t.shape)).astype(np.float32)
        for path, t in spec.items()
    }


def hashed(spec: Spec = SPEC) -> Tensors:
    """Returns an update made of integer arithmetic only, the same on every machine, for golden files."""
    out, at = {}, 0
    for path, t in spec.items():
        index = np.arange(at, at + t.size, dtype=np.uint64)
        mixed = (index * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(2**20)
        unit = mixed.astype(np.float64) / 2**19 - 1
        out[path] = (unit**3 * (mixed % np.uint64(3) != 0)).astype(np.float32).reshape(t.shape)
        at += t.size
    return out


def header(round_num: int = 3, num_examples: int = 60, loss: float = 0.5) -> wire.Header:
    """Returns the header of an update."""
    return wire.Header(wire.UPDATE, round_num, round_num, num_examples, loss)


def packed(codec: Codec, tensors: Tensors, spec: Spec = SPEC, key: int = 7, round_num: int = 3) -> bytes:
    """Returns an update packet."""
    return wire.pack(header(round_num), tensors, spec, codec, philox(key))


def through(codec: Codec, tensors: Tensors, spec: Spec = SPEC, key: int = 7, round_num: int = 3) -> Tensors:
    """Returns what a server decodes from the packet of ``tensors``."""
    return wire.unpack(packed(codec, tensors, spec, key, round_num), spec, codec).tensors


def nmse(tensors: Tensors, decoded: Tensors) -> float:
    """Returns ``‖x − x̂‖²/‖x‖²`` over all tensors."""
    error = sum(float(np.sum(np.square(tensors[p].astype(np.float64) - decoded[p]))) for p in tensors)
    return error / sum(float(np.sum(np.square(v, dtype=np.float64))) for v in tensors.values())
