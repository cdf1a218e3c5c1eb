"""Delta download: a device gets only the difference to the version it holds, and lands on exactly what all others have.

Every global model is broadcast as the nearest point of a lattice around the model that ships with the app:

```
B_t = B_0 + Δ·n_t      n_t = rint((w_t − B_0) / Δ), whole numbers
```
The server sends ``n_t − n_v`` to a device that holds version ``v``, entropy-coded without loss. Whatever versions a
device skipped, it ends at B_t: there is no drift to correct, and no state of single devices on the server beyond the
version number. Rounding never adds up, because n_t is made from the exact weights w_t each time. Version 0 is B_0
itself, so a device fresh from the app store needs no whole model either.

Where weights are pruned, zero must arrive as zero, and nothing else as zero, or devices would find other masks than the
server has. There the point nearest to zero stands for exactly zero, and weights that live keep off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs.base import Codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors

TYPICAL_RMS = 0.05
"""Root mean square of a Glorot-initialised layer of a few hundred units."""


@dataclass(frozen=True)
class Lattice:
    """The points a broadcast model can take.

    Attributes:
        origin: The model in the app, version 0.
        spec: Its shapes.
        step: Δ: weights are known to devices to within Δ/2.
        pruned: Paths in which exactly zero has a point of its own; other weights there are known to within Δ.
    """

    origin: Tensors
    spec: Spec
    step: float
    pruned: tuple[str, ...] = ()

    @staticmethod
    def around(origin: Tensors, spec: Spec, fineness: float, pruned: Sequence[str] = ()) -> Lattice:
        """Returns a lattice whose step is ``fineness`` times the rms of the trainable first weights.

        A model that starts at zero (logistic regression) has no scale yet; `TYPICAL_RMS` stands in for it.
        """
        weights = np.concatenate([origin[p].ravel() for p, t in spec.items() if t.trainable])
        rms = float(np.sqrt(np.mean(np.square(weights, dtype=np.float64)))) or TYPICAL_RMS
        return Lattice(origin, spec, float(np.float32(fineness * rms)), tuple(pruned))

    @property
    def codec(self) -> Codec:
        """The codec of a delta packet: the lattice's own step, no loss."""
        return Ecsq(self.step, "nearest", absolute=True)

    def point(self, weights: Tensors) -> Tensors:
        """Returns ``int32`` coordinates n_t of the point nearest to the weights, trainable tensors only."""
        nearest = {
            path: np.rint((weights[path].astype(np.float64) - self.origin[path]) / self.step).astype(np.int32)
            for path, tensor in self.spec.items()
            if tensor.trainable
        }
        for path in self.pruned:
            zero = self._zero(path)
            above = weights[path] > self.origin[path] + self.step * zero.astype(np.float64)
            lives = (nearest[path] == zero) & (weights[path] != 0)
            nearest[path] += np.where(lives, np.where(above, 1, -1), 0).astype(np.int32)
        return nearest

    def weights(self, point: Tensors, statistics: Tensors) -> Tensors:
        """Returns the model at a point; statistics are taken as they are."""
        decoded = {
            path: (self.origin[path] + self.step * point[path].astype(np.float64)).astype(np.float32)
            if tensor.trainable
            else statistics[path]
            for path, tensor in self.spec.items()
        }
        for path in self.pruned:
            decoded[path][point[path] == self._zero(path)] = 0.0
        return decoded

    def pack(self, weights: Tensors, point: Tensors, held: Tensors, *, version: int, held_version: int) -> bytes:
        """Returns the packet that takes a device from one point to another; about 45 bytes if it is there already."""
        moved = {
            path: ((point[path] - held[path]) * np.float64(self.step)).astype(np.float32)
            if tensor.trainable
            else weights[path]
            for path, tensor in self.spec.items()
        }
        header = wire.Header(wire.MODEL_DELTA, version, held_version)
        return wire.pack(header, moved, self.spec, self.codec, rng_for(0, "lossless"))

    def unpack(self, packet: bytes, held: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the device's new point and the weights it trains from.

        Raises:
            WireError: The packet is damaged or of another model.
        """
        _, moved = wire.unpack(packet, self.spec, self.codec)
        steps = {path: np.rint(moved[path] / np.float64(self.step)).astype(np.int32) for path in held}
        point = {path: held[path] + steps[path] for path in held}
        return point, self.weights(point, moved)

    def _zero(self, path: str) -> np.ndarray:
        """Returns ``int32`` coordinates of the point that stands for zero."""
        return np.rint(-self.origin[path].astype(np.float64) / self.step).astype(np.int32)
