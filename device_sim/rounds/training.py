"""A crew trains on the engine and its phones encode; the server's workers fold what arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from device_sim.engines import Engine, Task
from device_sim.experiment.personal import DITTO
from device_sim.federation.federation import Federation
from device_sim.rounds.crew import Crew
from device_sim.rounds.download import Broadcast
from device_sim.rounds.own import private_of, pull_of, train_own_models
from device_sim.rounds.phones import Answer, Folding, Phones, Ready
from device_sim.run.memory import FleetMemory
from fl_mobile import wire
from fl_mobile.codecs import Codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.measure.sources import write_update
from fl_mobile.records import ServerState
from fl_mobile.server.rounds import Admission, Fold, fold
from fl_mobile.storage.files import write_json

FOLD_BYTES = 1 << 20
"""Packets of less than this in all are folded where they are; handing them out would cost more."""


def published_codec(federation: Federation, memory: FleetMemory) -> Codec:
    """Returns the codec the server publishes for this step: under rate control with the step of the moment."""
    if federation.rate_control is None or not isinstance(federation.upload, Ecsq):
        return federation.upload
    if memory.upload_step is None:
        memory.upload_step = federation.upload.step
    return federation.upload.with_step(memory.upload_step)


def train_crew(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    crew: Crew,
    who: np.ndarray,
    down: Broadcast,
    layout: wire.Layout,
    updates: Path,
    folding: Folding | None,
) -> Ready:
    """Returns the answers of the crew's devices at positions ``who`` ``int64[m]``, in that order, and their fold.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round.
    """
    experiment, weights = federation.experiment, federation.whole(down.weights)
    feedback = experiment.upload.memory == "error-feedback"
    keep = _kept(federation, state.round_num, crew.devices.index[who])
    phones = Phones(
        *(layout, state.round_num, down.prediction, feedback, experiment.policy.min_update_norm > 0, keep),
        private={path: weights[path] for path in weights if path in federation.private},
        masks=down.masks,
        fold=folding,
    )

    def tasks() -> Iterator[Task]:
        for at in who.tolist():
            device = int(crew.devices.index[at])
            residual = memory.shelf.get(f"residual-{device}", before=state.round_num) if feedback else None
            pull, own = pull_of(federation, memory, state, down, device), private_of(federation, memory.shelf, device)
            if pull is not None:  # engines want one for every weight; nothing pulls on private ones
                still = (path for path in federation.private if federation.engine.spec[path].trainable)
                pull |= {path: np.zeros_like(weights[path]) for path in still}
            examples = federation.data.examples(device)
            yield Task(device, *examples, int(crew.seeds[at]), start=own, residual=residual, pull=pull)

    ready = Ready([], folding(()) if folding else None)
    for chunk in federation.engine.train(weights, tasks(), federation.plan(state.round_num), phones):
        ready.add(chunk)
    for answer in ready.answers:
        _keep(federation, updates, state.round_num, answer)
        if answer.private:
            memory.shelf.replace(f"private-{answer.device}", state.round_num, answer.private)
    if experiment.personal.method == DITTO:
        train_own_models(federation, memory, state.round_num, weights, crew, who)
    return ready


def folding_of(federation: Federation, state: ServerState, layout: wire.Layout, admission: Admission) -> Folding:
    """Returns how the server adds up packets in this step."""
    plan = federation.plan(state.round_num) if federation.algorithm.per_step else None
    return partial(fold, round_num=state.round_num, layout=layout, admission=admission, plan=plan)


def fold_packets(engine: Engine, packets: Sequence[bytes], folding: Folding) -> Fold:
    """Returns all packets folded, by all workers where that is worth it; sums are exact, so the cut does not matter."""
    parts = 1 if sum(map(len, packets)) < FOLD_BYTES else min(len(packets), 2 * engine.workers)
    futures = [engine.submit(folding, packets[part::parts]) for part in range(1, parts)]
    total = folding(packets[::parts])
    for future in futures:
        total.merge(future.result())
    return total


def _kept(federation: Federation, round_num: int, devices: np.ndarray) -> frozenset[int]:
    """Returns the devices whose raw update is kept: two a round at even distances over the run."""
    wanted, rounds = federation.experiment.output.keep_updates, federation.experiment.train.rounds
    chosen = {rounds * i // max(1, wanted // 2) for i in range(max(1, wanted // 2))}
    return frozenset(devices[: min(2, wanted)].tolist() if wanted and round_num in chosen else ())


def _keep(federation: Federation, updates: Path, round_num: int, answer: Answer) -> None:
    if answer.delta is None:
        return
    write_update(updates / f"round-{round_num:05d}-device-{answer.device:06d}.npz", answer.delta)
    tensors = federation.spec.items()
    write_json(updates / "spec.json", [{"path": p, "shape": t.shape, "trainable": t.trainable} for p, t in tensors])
