"""The loop: one round after another, each finished one safe on disk before the next begins.

```
cohort ─ download packet ─▶ engine.train ─▶ client.encode_update ─▶ link ─▶ server_round ─▶ evaluate ─▶ disk
  │ offline                                                           │ lost         │ dropped by reason
```
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from device_sim.federation import Federation
from device_sim.network import arrives
from device_sim.run_folder import RunFolder, append_round, rewind_rounds
from fl_mobile import checkpoint, client, wire
from fl_mobile.errors import DivergedError
from fl_mobile.files import replace_atomic
from fl_mobile.records import ServerState
from fl_mobile.seeds import rng_for
from fl_mobile.server import server_round
from fl_mobile.tensors import Tensors, fp32_bytes


@dataclass(frozen=True)
class Round:
    """One line of ``rounds.jsonl``.

    Attributes:
        round_num: Counted from 0.
        accuracy: Of the new global model on the held-out examples, 0 to 1.
        loss: Mean held-out loss.
        train_loss: Mean local loss as the devices reported it.
        cohort: Devices that were asked.
        accepted: Updates in the average.
        dropped: Reason → devices lost: ``offline``, ``lost`` on air, or why the server refused the packet.
        upload_bytes: Bytes all devices sent, lost transfers too; ``len`` of real packets.
        download_bytes: Bytes all devices received.
        uploads: Number of packets sent.
        ratio: fp32 bytes of the model / mean packet length; None if no device sent one.
        air_seconds: Slowest device's download plus upload time, simulated.
        wall_seconds: What simulating this round took here.
    """

    round_num: int
    accuracy: float
    loss: float
    train_loss: float | None
    cohort: int
    accepted: int
    dropped: dict[str, int]
    upload_bytes: int
    download_bytes: int
    uploads: int
    ratio: float | None
    air_seconds: float
    wall_seconds: float


@dataclass
class _Traffic:
    """What one round's transfers added up to."""

    lost: Counter[str] = field(default_factory=Counter)
    upload_bytes: int = 0
    download_bytes: int = 0
    uploads: int = 0
    air_seconds: float = 0.0


def simulate(federation: Federation, folder: RunFolder) -> Iterator[Round]:
    """Yields rounds, those already on disk first, until the experiment's stop rule.

    Same experiment, same bytes in every packet and same final weights: whatever the engine's workers, and however
    often the process was killed and started again.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round. The run stays at the round before.
        RunError: The folder's checkpoint or log is damaged.
    """
    state, log = restore(federation, folder)
    rounds = [_round_of(line) for line in log]
    yield from rounds
    while not stop_reason(federation, rounds):
        started = time.perf_counter()
        state, report, traffic = _play(federation, folder, state)
        plan = federation.plan(state.round_num)
        score = federation.engine.evaluate(state.weights, federation.dataset.test.x, federation.dataset.test.y, plan)
        if not math.isfinite(score.loss):
            raise DivergedError(
                f"round {report.round_num}: the held-out loss of the new global model is {score.loss}."
                " Lower train.learning-rate or server.learning-rate."
            )
        done = Round(
            round_num=report.round_num,
            accuracy=score.accuracy,
            loss=score.loss,
            train_loss=None if math.isnan(report.loss) else report.loss,
            cohort=federation.experiment.train.cohort,
            accepted=report.accepted,
            dropped=dict(sorted((traffic.lost + Counter(report.dropped)).items())),
            upload_bytes=traffic.upload_bytes,
            download_bytes=traffic.download_bytes,
            uploads=traffic.uploads,
            ratio=fp32_bytes(state.spec) * traffic.uploads / traffic.upload_bytes if traffic.uploads else None,
            air_seconds=traffic.air_seconds,
            wall_seconds=time.perf_counter() - started,
        )
        # Log first, checkpoint second: a crash between the two leaves a line that `restore` drops and plays again.
        append_round(folder, asdict(done))
        checkpoint.save(folder.checkpoint, state, {})
        rounds.append(done)
        yield done


def restore(federation: Federation, folder: RunFolder) -> tuple[ServerState, list[dict[str, Any]]]:
    """Returns the state to go on from and the finished rounds; a new run starts at the engine's first weights."""
    if not folder.checkpoint.exists():
        return federation.algorithm.init(federation.engine.initial, federation.engine.spec), rewind_rounds(folder, 0)
    state, _ = checkpoint.load(folder.checkpoint, federation.engine.spec)
    return state, rewind_rounds(folder, state.round_num)


def stop_reason(federation: Federation, rounds: list[Round]) -> str:
    """Returns why the run is over, or an empty string."""
    stop, limit = federation.experiment.stop, federation.experiment.train.rounds
    if stop.target_accuracy and rounds and rounds[-1].accuracy >= stop.target_accuracy:
        return f"reached target accuracy {stop.target_accuracy:g}"
    if stop.patience and rounds:
        best = min(range(len(rounds)), key=lambda i: rounds[i].loss)
        if len(rounds) - 1 - best >= stop.patience:
            return f"held-out loss has not improved for {stop.patience} rounds"
    return f"finished {limit} rounds" if len(rounds) >= limit else ""


def _play(federation: Federation, folder: RunFolder, state: ServerState) -> tuple[ServerState, Any, _Traffic]:
    """Plays one round: who answers, what travels, what the server makes of it."""
    traffic = _Traffic()
    packets = _packets(federation, folder, state, traffic)
    after, report = server_round(
        state,
        packets,
        algorithm=federation.algorithm,
        codec=federation.upload,
        admission=federation.experiment.server.admission(),
    )
    return after, report, traffic


def _packets(federation: Federation, folder: RunFolder, state: ServerState, traffic: _Traffic) -> Iterator[bytes]:
    """Yields the packets that reach the server; memory holds a few updates at a time."""
    experiment, round_num = federation.experiment, state.round_num
    packet, received = _broadcast(federation, state)
    tasks = (
        federation.task(device, round_num)
        for device in federation.cohort(round_num)
        if _answers(federation, device, round_num, len(packet), traffic)
    )
    for task, update in federation.engine.train(received, tasks, federation.plan(round_num)):
        rng = rng_for(experiment.seed, round_num, task.device, "codec")
        try:
            if not math.isfinite(loss := update.metrics["loss"]):
                raise DivergedError(f"local training ended with loss {loss}. Lower train.learning-rate.")
            upload = client.encode_update(update, state.spec, federation.upload, rng, round_num=round_num)
        except DivergedError as error:
            raise DivergedError(f"device {task.device}, round {round_num}: {error}") from None
        _keep(federation, folder, round_num, task.device, update.delta)
        link = federation.link(task.device)
        traffic.uploads += 1
        traffic.upload_bytes += len(upload)
        seconds = link.down_seconds(len(packet)) + link.up_seconds(len(upload))
        traffic.air_seconds = max(traffic.air_seconds, seconds)
        if arrives(link, rng_for(experiment.seed, round_num, task.device, "air")):
            yield upload
        else:
            traffic.lost["lost"] += 1


def _broadcast(federation: Federation, state: ServerState) -> tuple[bytes, Tensors]:
    """Returns the download packet, and the weights as a device decodes them: training starts from those."""
    header = wire.Header(wire.MODEL, state.round_num, state.round_num)
    rng = rng_for(federation.experiment.seed, state.round_num, "broadcast")
    packet = wire.pack(header, state.weights, state.spec, federation.download, rng)
    return packet, wire.unpack(packet, state.spec, federation.download).tensors


def _answers(federation: Federation, device: int, round_num: int, download_bytes: int, traffic: _Traffic) -> bool:
    """Returns whether a chosen device takes part; counts its download if it does."""
    experiment = federation.experiment
    if rng_for(experiment.seed, round_num, device, "offline").random() < experiment.fleet.dropout_rate:
        traffic.lost["offline"] += 1
        return False
    traffic.download_bytes += download_bytes
    return True


def _keep(federation: Federation, folder: RunFolder, round_num: int, device: int, delta: Tensors) -> None:
    """Stores a few raw updates, two a round at even distances over the run, for `fl-mobile measure`."""
    wanted = federation.experiment.output.keep_updates
    rounds = federation.experiment.train.rounds
    chosen = {rounds * i // max(1, wanted // 2) for i in range(max(1, wanted // 2))}
    if not wanted or round_num not in chosen:
        return
    path = folder.updates / f"round-{round_num:05d}-device-{device:06d}.npz"
    here = len(list(folder.updates.glob(f"round-{round_num:05d}-*.npz"))) if folder.updates.exists() else 0
    if path.exists() or here < 2:
        arrays: dict[str, np.ndarray] = dict(delta)
        replace_atomic(path, lambda tmp: np.savez(tmp, **arrays))  # type: ignore[arg-type]


def _round_of(line: dict[str, Any]) -> Round:
    return Round(**line)
