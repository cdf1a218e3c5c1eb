"""One round, from the server's state to the next one: what travels down, what happens on devices, what travels up.

```
cohort ─ offline? ─ download ─▶ engine.train ─▶ client.encode_update ─▶ link, lost? ─▶ server_round
            full | delta         residual, prediction                                   step of the next round
```
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from device_sim.engines import pairs
from device_sim.federation import Federation
from device_sim.memory import FleetMemory
from device_sim.network import arrives
from fl_mobile import client, feedback, wire
from fl_mobile.broadcast import Lattice
from fl_mobile.codecs import Codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.errors import DivergedError, RunError
from fl_mobile.files import write_json
from fl_mobile.records import RoundReport, ServerState, Update
from fl_mobile.seeds import rng_for
from fl_mobile.server import server_round
from fl_mobile.sources import write_update
from fl_mobile.tensors import Tensors

VERSIONS_KEPT = 50
"""A device that holds an older version than this gets the difference to version 0, which ships with the app."""

PREDICTION = Ecsq(step=2.0, rounding="rdo")
"""Codec of the broadcast mean under CAFe: small, and biased is no harm where both ends use what was decoded."""


@dataclass
class Traffic:
    """What one round's transfers added up to."""

    lost: Counter[str] = field(default_factory=Counter)
    upload_bytes: int = 0
    download_bytes: int = 0
    uploads: int = 0
    air_seconds: float = 0.0


@dataclass(frozen=True)
class Download:
    """What every device of a round receives.

    Attributes:
        weights: The model as devices decode it; training starts from these, not from the server's own.
        prediction: The last mean update as devices decode it, under CAFe.
        packet_bytes: Device → bytes it downloads.
    """

    weights: Tensors
    prediction: Tensors | None
    packet_bytes: dict[int, int]


def play_round(
    federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
) -> tuple[ServerState, RoundReport, Traffic]:
    """Returns the next state, what the server saw, and what travelled.

    Args:
        memory: Changed in place.
        updates: Folder that receives a few raw updates, for `fl-mobile measure`.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round.
    """
    traffic = Traffic()
    devices = [d for d in federation.cohort(state.round_num) if _answers(federation, d, state.round_num, traffic)]
    down = _download(federation, memory, state, devices)
    traffic.download_bytes = sum(down.packet_bytes.values())
    codec = _upload_codec(federation, memory)
    after, report = server_round(
        state,
        _packets(federation, memory, state, down, codec, updates, traffic),
        algorithm=federation.algorithm,
        codec=codec,
        admission=federation.experiment.server.admission(),
        prediction=down.prediction,
    )
    if federation.experiment.upload.memory == "cafe" and report.mean is not None:
        memory.shelf.put("mean", state.round_num, report.mean)
        memory.shelf.forget("mean", before=state.round_num, keep=1)
    if (control := federation.rate_control) and memory.upload_step is not None:
        memory.upload_step = control.next_step(memory.upload_step, report.upload_bytes)
    return after, report, traffic


def _answers(federation: Federation, device: int, round_num: int, traffic: Traffic) -> bool:
    rng = rng_for(federation.experiment.seed, round_num, device, "offline")
    if rng.random() >= federation.experiment.fleet.dropout_rate:
        return True
    traffic.lost["offline"] += 1
    return False


def _upload_codec(federation: Federation, memory: FleetMemory) -> Codec:
    """Returns the codec the server publishes for this round."""
    if federation.rate_control is None or not isinstance(federation.upload, Ecsq):
        return federation.upload
    if memory.upload_step is None:
        memory.upload_step = federation.upload.step
    return federation.upload.with_step(memory.upload_step)


def _download(federation: Federation, memory: FleetMemory, state: ServerState, devices: list[int]) -> Download:
    prediction, extra_bytes = _predict(federation, memory, state)
    if federation.experiment.download.mode == "delta":
        weights, packet_bytes = _delta_download(federation, memory, state, devices)
    else:
        header = wire.Header(wire.MODEL, state.round_num, state.round_num)
        rng = rng_for(federation.experiment.seed, state.round_num, "broadcast")
        packet = wire.pack(header, state.weights, state.spec, federation.download, rng)
        weights = wire.unpack(packet, state.spec, federation.download).tensors
        packet_bytes = dict.fromkeys(devices, len(packet))
    return Download(weights, prediction, {d: size + extra_bytes for d, size in packet_bytes.items()})


def _delta_download(
    federation: Federation, memory: FleetMemory, state: ServerState, devices: list[int]
) -> tuple[Tensors, dict[int, int]]:
    """Returns the weights every device ends at, and what each had to download for it."""
    lattice = Lattice.around(federation.engine.initial, state.spec, federation.experiment.download.step)
    point, now = lattice.point(state.weights), state.round_num
    memory.shelf.put("point", now, point)
    memory.shelf.forget("point", before=now, keep=VERSIONS_KEPT)
    sizes: dict[int, int] = {}
    packet_bytes = {}
    for device in devices:
        version = memory.versions.get(device, 0)
        if version not in sizes:
            held = memory.shelf.get_exactly("point", version) if version else None
            origin = {path: np.zeros_like(value) for path, value in point.items()}
            packet = lattice.pack(state.weights, point, held or origin, version=now, held_version=version)
            reached, _ = lattice.unpack(packet, held or origin)
            if any(not np.array_equal(reached[path], point[path]) for path in point):
                raise RunError(f"round {now}: a delta from version {version} did not reach the broadcast model")
            sizes[version] = len(packet)
        packet_bytes[device] = sizes[version]
        memory.versions[device] = now
    return lattice.weights(point, state.weights), packet_bytes


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


def _packets(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    down: Download,
    codec: Codec,
    updates: Path,
    traffic: Traffic,
) -> Iterator[bytes]:
    """Yields the packets that reach the server; memory holds a few updates at a time."""
    seed, round_num = federation.experiment.seed, state.round_num
    tasks = (federation.task(device, round_num) for device in down.packet_bytes)
    for task, update in federation.engine.train(down.weights, tasks, federation.plan(round_num), pairs):
        wanted = _wanted(federation, memory, state, task.device, update, down.prediction)
        rng = rng_for(seed, round_num, task.device, "codec")
        try:
            if not math.isfinite(loss := update.metrics["loss"]):
                raise DivergedError(f"local training ended with loss {loss}. Lower train.learning-rate.")
            packet = client.encode_update(replace(update, delta=wanted), state.spec, codec, rng, round_num=round_num)
        except DivergedError as error:
            raise DivergedError(f"device {task.device}, round {round_num}: {error}") from None
        _keep(federation, updates, round_num, task.device, update.delta)
        link = federation.link(task.device)
        traffic.uploads += 1
        traffic.upload_bytes += len(packet)
        seconds = link.down_seconds(down.packet_bytes[task.device]) + link.up_seconds(len(packet))
        traffic.air_seconds = max(traffic.air_seconds, seconds)
        arrived = arrives(link, rng_for(seed, round_num, task.device, "air"))
        if federation.experiment.upload.memory == "error-feedback":
            sent = wire.unpack(packet, state.spec, codec).tensors if arrived else None
            memory.shelf.put(f"residual-{task.device}", round_num, feedback.residual_after(wanted, sent))
            memory.shelf.forget(f"residual-{task.device}", before=round_num, keep=1)
        if arrived:
            yield packet
        else:
            traffic.lost["lost"] += 1


def _wanted(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    device: int,
    update: Update,
    prediction: Tensors | None,
) -> Tensors:
    """Returns what the device would send if sending were free."""
    if federation.experiment.upload.memory == "error-feedback":
        return feedback.with_residual(update.delta, memory.shelf.get(f"residual-{device}", before=state.round_num))
    return feedback.minus(update.delta, prediction)


def _keep(federation: Federation, updates: Path, round_num: int, device: int, delta: Tensors) -> None:
    """Stores a few raw updates, two a round at even distances over the run."""
    wanted, rounds = federation.experiment.output.keep_updates, federation.experiment.train.rounds
    chosen = {rounds * i // max(1, wanted // 2) for i in range(max(1, wanted // 2))}
    if not wanted or round_num not in chosen:
        return
    path = updates / f"round-{round_num:05d}-device-{device:06d}.npz"
    if path.exists() or len(list(updates.glob(f"round-{round_num:05d}-*.npz"))) < min(2, wanted):
        write_update(path, delta)
        tensors = federation.engine.spec.items()
        write_json(updates / "spec.json", [{"path": p, "shape": t.shape, "trainable": t.trainable} for p, t in tensors])
