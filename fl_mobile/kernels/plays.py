"""What a run calls of the compiled loops, in small: every codec, sum and noise, as client and server call them.

`fl_mobile/kernels/build.py` plays it to find what is to be compiled ahead of time. Whoever adds a loop, or calls one
with another kind of array, plays it here; `tests/fl_mobile/kernels/test_built.py` finds real runs that compile.
"""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from fl_mobile.aggregation.exact_mean import WeightedMean
from fl_mobile.codecs import CODECS, STAGES, parse_codec
from fl_mobile.codecs.sketch.projection import spread
from fl_mobile.errors import WireError
from fl_mobile.privacy.clipped_sum import ClippedSum
from fl_mobile.privacy.gaussian import add_gaussian
from fl_mobile.privacy.keys import Keystream
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors, TensorSpec
from fl_mobile.wire.packet import Header, Layout

ROUNDINGS = (
    *("ecsq:rounding=rdo,step=1", "ecsq:abs=0.01,rounding=nearest,rank=0", "ecsq:rank=0"),
    "sketch:k=256,width=16,step=0.001",
)
"""Codecs beside the examples of the tables, for the ways in which they round; the third codes many updates at once."""


def play() -> str:
    """Returns a hash of all packets and sums; the same compiled or not."""
    update, digest = _update(), hashlib.sha256()
    spec = {path: TensorSpec(tensor.shape) for path, tensor in update.items()}
    mean, clipped = WeightedMean(spec), ClippedSum(spec, 1.0)
    for text in (*ROUNDINGS, *(row.example for row in CODECS.values()), *(row.example for row in STAGES.values())):
        layout, header = Layout(spec, parse_codec(text)), Header(0, 1, 0, 3)
        for tensors in (update, {path: _read_only(tensor) for path, tensor in update.items()}):
            packet = layout.pack(header, tensors, rng_for(1, 1, 0, "play"))
            received = layout.unpack(packet, header).tensors
            digest.update(packet)
            digest.update(b"".join(layout.pack_each([header], [tensors], [1])))
            layout.unpack_each([packet], [header])
            for each in (tensors, received):
                mean.add(each, 3)
                clipped.add(each, 1)
    for numbers in (np.arange(8), np.arange(8.0)):  # as a server rounds its step to whole sums and forwards them
        digest.update(spread(numbers, 1, 20).tobytes())
    for total in clipped.total.values():
        add_gaussian(total.reshape(-1), 1000, Keystream(bytes(32)))
    for tensor in (*(mean.result() or {}).values(), *clipped.total.values()):
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def read_noise() -> None:
    """Calls the loop that takes longest to compile, the reader of entropy-coded levels, before there are any."""
    noise = b"\2" + np.float32(1).tobytes() + b"\0\0" + b"\xff" * 40
    with contextlib.suppress(WireError):
        parse_codec("ecsq").decode(memoryview(noise), {"x": TensorSpec((4,))})


def _update() -> Tensors:
    rng = np.random.Generator(np.random.PCG64(5))
    low = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 40))
    return {
        "convolution": (0.1 * rng.standard_normal((3, 3, 4, 16))).astype(np.float32),
        "bias": rng.standard_normal(16).astype(np.float32),
        "dense": (0.1 * low).astype(np.float32),
        "scalar": np.ones((), np.float32),
    }


def _read_only(tensor: np.ndarray) -> np.ndarray:
    out = tensor.copy()
    out.flags.writeable = False
    return out
