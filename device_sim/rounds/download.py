"""What travels down: the whole model or the difference to the version a device holds, and what an algorithm adds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.run.memory import FleetMemory
from fl_mobile import wire
from fl_mobile.client import feedback
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.errors import RunError
from fl_mobile.records import ServerState
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors
from fl_mobile.wire.lattice import Lattice, prune_point
from fl_mobile.wire.pruning_mask import Masks, apply_masks, masks_for, sparsity_at, zero_runs

VERSIONS_KEPT = 50
"""A device that holds an older version than this gets the difference to version 0, which ships with the app."""

PREDICTION = Ecsq(step=2.0, rounding="rdo")
"""Codec of the broadcast mean under CAFe: small, and biased is no harm where both ends use what was decoded."""


@dataclass
class Broadcast:
    """One version of the model on its way to devices.

    Attributes:
        weights: The model as devices decode it; training starts from these, not from the server's own.
        prediction: The last mean update as devices decode it, under CAFe.
        sent: What the algorithm sends beside the model, as devices decode it: SCAFFOLD's control variate.
        extra_bytes: What the two cost every device.
        full_bytes: Length of the whole model's packet, in full mode.
        delta: How differences are made, in delta mode.
        masks: What is pruned in this version; ``weights`` are zero there.
    """

    weights: Tensors
    prediction: Tensors | None
    sent: Tensors
    extra_bytes: int
    full_bytes: int = 0
    delta: _Delta | None = None
    masks: Masks = field(default_factory=dict)

    def pruned(self, state: ServerState) -> ServerState:
        """Returns the state that a step from this version has led to, as sparse as this version."""
        return replace(state, weights=apply_masks(state.weights, self.masks)) if self.masks else state

    def bytes_for(self, devices: np.ndarray, memory: FleetMemory) -> np.ndarray:
        """Returns ``int64[n]``: what each device downloads to hold this version, which it does from now on."""
        if self.delta is None:
            return np.full(len(devices), self.full_bytes + self.extra_bytes, np.int64)
        return self.delta.bytes_for(devices, memory) + self.extra_bytes


def broadcast(federation: Federation, memory: FleetMemory, state: ServerState) -> Broadcast:
    """Returns the state's model, ready to be sent.

    Every device that has decoded it finds the masks of the round by itself, the server the same ones: they follow from
    the decoded weights, of which those that were zero before are the smallest.
    """
    down = _decoded(federation, memory, state)
    plan = federation.experiment.train.pruning.plan()
    masks = masks_for(plan, down.weights, state.spec, state.round_num)
    if down.delta is not None:
        memory.shelf.put("point", state.round_num, prune_point(down.delta.point, masks))
        memory.shelf.forget("point", before=state.round_num, keep=VERSIONS_KEPT)
    return replace(down, weights=apply_masks(down.weights, masks), masks=masks)


def _decoded(federation: Federation, memory: FleetMemory, state: ServerState) -> Broadcast:
    """Returns the state's model as it arrives, before anything is pruned."""
    prediction, prediction_bytes = _predict(federation, memory, state)
    sent, sent_bytes = _beside_the_model(federation, state)
    extra_bytes = prediction_bytes + sent_bytes
    if federation.experiment.download.mode == "delta":
        pruning, step = federation.experiment.train.pruning.plan(), federation.experiment.download.step
        runs = zero_runs(pruning, state.spec) if sparsity_at(pruning, state.round_num) else {}
        lattice = Lattice.around(federation.initial, state.spec, step, runs)
        point = lattice.point(state.weights)
        delta = _Delta(lattice, point, state)
        return Broadcast(lattice.weights(point, state.weights), prediction, sent, extra_bytes, delta=delta)
    header = wire.Header(wire.MODEL, state.round_num, state.round_num)
    rng = rng_for(federation.experiment.seed, state.round_num, "broadcast")
    packet = wire.pack(header, state.weights, state.spec, federation.download, rng)
    weights = wire.unpack(packet, state.spec, federation.download).tensors
    return Broadcast(weights, prediction, sent, extra_bytes, full_bytes=len(packet))


@dataclass
class _Delta:
    """Differences between a version's point on the lattice and the points devices hold, pruned as they prune them."""

    lattice: Lattice
    point: Tensors
    state: ServerState
    sizes: dict[int, int] = field(default_factory=dict)

    def bytes_for(self, devices: np.ndarray, memory: FleetMemory) -> np.ndarray:
        versions, place = np.unique(memory.versions.get(devices), return_inverse=True)
        for version in versions.tolist():
            if version not in self.sizes:
                self.sizes[version] = self._packet_bytes(version, memory)
        memory.versions.set(devices, self.state.round_num)
        return np.array([self.sizes[version] for version in versions.tolist()], np.int64)[place]

    def _packet_bytes(self, version: int, memory: FleetMemory) -> int:
        now = self.state.round_num
        held = (memory.shelf.get_exactly("point", version) if version else None) or self.lattice.start
        wanted = held if version == now else self.point
        packet = self.lattice.pack(self.state.weights, wanted, held, version=now, held_version=version)
        reached, _ = self.lattice.unpack(packet, held)
        if any(not np.array_equal(reached[path], wanted[path]) for path in wanted):
            raise RunError(f"round {now}: a delta from version {version} did not reach the broadcast model")
        return len(packet)


def _predict(federation: Federation, memory: FleetMemory, state: ServerState) -> tuple[Tensors | None, int]:
    """Returns the prediction as devices decode it, and what broadcasting it costs each of them."""
    if federation.experiment.upload.memory != "cafe":
        return None, 0
    mean = memory.shelf.get("mean", before=state.round_num)
    if mean is None:
        return None, 0
    header = wire.Header(wire.MODEL_DELTA, state.round_num, state.round_num)
    packet = wire.pack(header, feedback.predictable(mean, state.spec), state.spec, PREDICTION, rng_for(0, "unused"))
    return wire.unpack(packet, state.spec, PREDICTION).tensors, len(packet)


def _beside_the_model(federation: Federation, state: ServerState) -> tuple[Tensors, int]:
    """Returns the slot that the algorithm sends, as devices decode it, and the length of its packet."""
    if not federation.algorithm.sends:
        return {}, 0
    slot = state.slots[federation.algorithm.sends]
    spec = {path: state.spec[path] for path in slot}
    header = wire.Header(wire.MODEL, state.round_num, state.round_num)
    rng = rng_for(federation.experiment.seed, state.round_num, "beside-the-model")
    packet = wire.pack(header, slot, spec, federation.download, rng)
    return wire.unpack(packet, spec, federation.download).tensors, len(packet)
