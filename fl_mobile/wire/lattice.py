"""Delta download: a device gets only the difference to the version it holds, and lands on exactly what all others have.

Every global model is broadcast as the nearest point of a lattice around the model that ships with the app:

```
B_t = B_0 + Δ·n_t      n_t = rint((w_t − B_0) / Δ), whole numbers
```
The server sends ``n_t − n_v`` to a device that holds version ``v``, entropy-coded without loss. Whatever versions a
device skipped, it ends at B_t: there is no drift to correct, and no state of single devices on the server beyond the
version number. Rounding never adds up, because n_t is made from the exact weights w_t each time. Version 0 is B_0
itself, so a device fresh from the app store needs no whole model either.

Pruned weights are exactly zero, which is no point of the lattice. They are `DEAD` instead: a packet tells which runs of
weights died or came back since v, then moves those that live and leaves out the others, so a dead weight costs nothing.

```
without pruning   wire packet of n_t − n_v
with pruning      u32 length of the next · wire packet of −1, 0, 1 for every run · wire packet of n_t − n_v where alive
```
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs.base import Codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.ecsq.records import MAX_LEVEL
from fl_mobile.errors import DivergedError, WireError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, TensorSpec
from fl_mobile.wire.pruning_mask import Masks, live_runs, spread_runs

TYPICAL_RMS = 0.05
"""Root mean square of a Glorot-initialised layer of a few hundred units."""

DEAD = np.int32(np.iinfo(np.int32).min)
"""Coordinate of a weight that is exactly zero because it was pruned."""

TURNS = Ecsq(1.0, "nearest", absolute=True)
"""Codec of what died (1) or came back (−1): lossless on whole numbers."""

FURTHEST = MAX_LEVEL // 2
"""Steps a coordinate may be away from the app's model: differences of any two versions are then lossless."""

_LENGTH = struct.Struct("<I")
_VERSIONS, _VERSIONS_AT = struct.Struct("<II"), 20
"""Round and base round in a packet's header, see `wire.packet`."""


@dataclass(frozen=True)
class Lattice:
    """The points a broadcast model can take.

    Attributes:
        origin: The model in the app, version 0.
        spec: Its shapes.
        step: Δ: weights that live are known to devices to within Δ/2.
        zero_runs: Path → how many inputs of one output die together; weights of other paths cannot die. See
            `fl_mobile.wire.pruning_mask.zero_runs`.
    """

    origin: Tensors
    spec: Spec
    step: float
    zero_runs: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def around(origin: Tensors, spec: Spec, fineness: float, zero_runs: Mapping[str, int] | None = None) -> Lattice:
        """Returns a lattice whose step is ``fineness`` times the rms of the trainable first weights.

        A model that starts at zero (logistic regression) has no scale yet; `TYPICAL_RMS` stands in for it.
        """
        weights = np.concatenate([origin[p].ravel() for p, t in spec.items() if t.trainable])
        rms = float(np.sqrt(np.mean(np.square(weights, dtype=np.float64)))) or TYPICAL_RMS
        return Lattice(origin, spec, float(np.float32(fineness * rms)), zero_runs or {})

    @property
    def codec(self) -> Codec:
        """The codec of a delta packet: the lattice's own step, no loss."""
        return Ecsq(self.step, "nearest", absolute=True)

    @property
    def start(self) -> Tensors:
        """``int32`` coordinates of version 0, trainable tensors only."""
        return {path: np.zeros(tensor.shape, np.int32) for path, tensor in self.spec.items() if tensor.trainable}

    def point(self, weights: Tensors) -> Tensors:
        """Returns ``int32`` coordinates n_t of the point nearest to the weights, trainable tensors only.

        Runs of nothing but zeros are `DEAD`.

        Raises:
            DivergedError: A weight is more than `FURTHEST` steps away from its first value, or not finite.
        """
        nearest = {
            path: self._coordinates(path, weights[path]) for path, tensor in self.spec.items() if tensor.trainable
        }
        alive = {path: spread_runs(live_runs(weights[path], run), run) for path, run in self.zero_runs.items()}
        return prune_point(nearest, alive)

    def _coordinates(self, path: str, values: np.ndarray) -> np.ndarray:
        steps = np.rint((values.astype(np.float64) - self.origin[path]) / self.step)
        furthest = float(np.abs(steps).max(initial=0.0))
        if not furthest <= FURTHEST:  # NaN is not
            raise DivergedError(
                f"tensor '{path}' of the global model moved {furthest * self.step:g} away from its first value; delta"
                f" downloads reach {FURTHEST * self.step:g}. Lower the learning rates; if training is sound, use a"
                " larger download.step or download.mode full."
            )
        return steps.astype(np.int32)

    def weights(self, point: Tensors, statistics: Tensors) -> Tensors:
        """Returns the model at a point; statistics are taken as they are."""
        decoded = {
            path: (self.origin[path] + self.step * point[path].astype(np.float64)).astype(np.float32)
            if tensor.trainable
            else statistics[path]
            for path, tensor in self.spec.items()
        }
        for path in self.zero_runs:
            decoded[path][point[path] == DEAD] = 0.0
        return decoded

    def pack(self, weights: Tensors, point: Tensors, held: Tensors, *, version: int, held_version: int) -> bytes:
        """Returns the packet that takes a device from one point to another; about 45 bytes if it is there already."""
        header, rng = wire.Header(wire.MODEL_DELTA, version, held_version), rng_for(0, "lossless")
        spec = self._sent(point)
        moved = {}
        for path in spec:
            if self.spec[path].trainable:
                steps = point[path].astype(np.int64) - _revived(held[path])
                alive = steps[point[path] != DEAD].reshape(spec[path].shape)
                moved[path] = (alive * np.float64(self.step)).astype(np.float32)
            else:
                moved[path] = weights[path]
        packet = wire.pack(header, moved, spec=spec, codec=self.codec, rng=rng)
        if not self.zero_runs:
            return packet
        dead, was = self._dead_runs(point), self._dead_runs(held)
        turns = {path: dead[path].astype(np.float32) - was[path] for path in dead}
        told = wire.pack(header, turns, spec=_spec_of(turns), codec=TURNS, rng=rng)
        return b"".join((_LENGTH.pack(len(told)), told, packet))

    def unpack(self, packet: bytes, held: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the device's new point and the weights it trains from.

        Raises:
            WireError: The packet is damaged or of another model.
        """
        base = {path: _revived(value) for path, value in held.items()}
        reached, packet = self._turned(packet, held, base) if self.zero_runs else (base, packet)
        spec = self._sent(reached)
        _, moved = wire.unpack(packet, spec, self.codec)
        for path in spec:
            if self.spec[path].trainable:
                steps = np.rint(moved[path] / np.float64(self.step)).astype(np.int32)
                reached[path][reached[path] != DEAD] += steps.ravel()
        return reached, self.weights(reached, moved)

    def versions(self, packet: bytes) -> tuple[int, int]:
        """Returns the version a delta leads to and the one it starts from, as it says; `unpack` checks it whole.

        Raises:
            WireError: The packet is too short to say.
        """
        at = _VERSIONS_AT
        if self.zero_runs and len(packet) >= _LENGTH.size:
            at += _LENGTH.size + _LENGTH.unpack_from(packet)[0]
        if len(packet) < at + _VERSIONS.size:
            raise WireError("truncated", f"a delta says its versions in its first {at + _VERSIONS.size} bytes")
        version, base = _VERSIONS.unpack_from(packet, at)
        return version, base

    def _turned(self, packet: bytes, held: Tensors, base: Tensors) -> tuple[Tensors, bytes]:
        """Returns ``base`` with what is dead in the version that is sent, and the rest of the packet."""
        if len(packet) < _LENGTH.size:
            raise WireError("truncated", f"a delta of a pruned model has at least {_LENGTH.size} bytes")
        end = _LENGTH.size + _LENGTH.unpack_from(packet)[0]
        was = self._dead_runs(held)
        _, turns = wire.unpack(packet[_LENGTH.size : end], _spec_of(was), TURNS)
        alive = {}
        for path, run in self.zero_runs.items():
            dead = was[path] + turns[path]
            if not np.isin(dead, (0.0, 1.0)).all():
                raise WireError("value", f"tensor '{path}': what is alive cannot come back, what is dead cannot die")
            alive[path] = spread_runs(dead == 0, run)
        return prune_point(base, alive), packet[end:]

    def _sent(self, point: Tensors) -> Spec:
        """Returns the shapes of what moves: of a tensor with dead weights only the others, in a row."""
        sent: Spec = {}
        for path, tensor in self.spec.items():
            alive = int((point[path] != DEAD).sum()) if path in self.zero_runs else tensor.size
            if alive:
                sent[path] = tensor if alive == tensor.size else TensorSpec((alive,))
        return sent

    def _dead_runs(self, point: Tensors) -> Masks:
        return {path: ~live_runs(point[path] != DEAD, run) for path, run in self.zero_runs.items()}


def prune_point(point: Tensors, masks: Mapping[str, np.ndarray]) -> Tensors:
    """Returns ``point`` with `DEAD` where a mask is False: what a device holds that has applied its version's masks."""
    return {path: np.where(masks[path], value, DEAD) if path in masks else value for path, value in point.items()}


def _revived(point: np.ndarray) -> np.ndarray:
    """Returns coordinates to move from: a weight that comes back starts where the app has it."""
    return np.where(point == DEAD, np.int32(0), point)


def _spec_of(tensors: Mapping[str, np.ndarray]) -> Spec:
    return {path: TensorSpec(value.shape) for path, value in tensors.items()}
