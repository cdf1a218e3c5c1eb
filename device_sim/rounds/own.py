"""What a device keeps and brings to its training: its algorithm's pull, its private tensors, its personal model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from device_sim.engines import Task, train_each
from device_sim.experiment.personal import DITTO, ONLY_HEAD
from device_sim.federation.federation import Federation
from device_sim.rounds.crew import Crew
from device_sim.rounds.download import Broadcast
from device_sim.run.memory import FleetMemory, Shelf
from fl_mobile.client.private import head_paths
from fl_mobile.records import FitPlan, ServerState
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Tensors


def pull_of(
    federation: Federation, memory: FleetMemory, state: ServerState, down: Broadcast, device: int
) -> Tensors | None:
    """Returns what a device adds to its gradients, None if its algorithm keeps nothing on devices."""
    if federation.algorithm.device is None:
        return None
    zeros = {path: np.zeros(t.shape, np.float32) for path, t in state.spec.items() if t.trainable}
    kept = memory.shelf.get(f"variate-{device}", before=state.round_num)
    return federation.algorithm.device.pull(down.sent, kept or {}, zeros)


def private_of(federation: Federation, shelf: Shelf, device: int) -> Tensors | None:
    """Returns the tensors a device keeps to itself; the first ones, which ship with the app, if it never trained."""
    if not federation.private:
        return None
    return shelf.newest(f"private-{device}") or {p: federation.engine.initial[p] for p in federation.private}


def personal_plan(federation: Federation, round_num: int) -> FitPlan:
    """Returns how a device trains what becomes its own model."""
    keys = federation.experiment.personal
    plan = federation.experiment.train.plan(round_num, from_logits=federation.engine.from_logits)
    return replace(
        plan,
        epochs=keys.epochs,
        learning_rate=keys.learning_rate or plan.learning_rate,
        proximal_mu=keys.mu if keys.method == DITTO else 0.0,
        trained=tuple(sorted(head_paths(federation.engine.spec))) if keys.method == ONLY_HEAD else (),
    )


def train_own_models(
    federation: Federation, memory: FleetMemory, round_num: int, weights: Tensors, crew: Crew, who: np.ndarray
) -> None:
    """Trains the personal models of the crew's devices at positions ``who`` ``int64[m]``: Ditto's second half.

    ``min Lₖ(v) + λ/2·‖v − w‖²`` from where v was left, w being the model just received (Li et al., "Ditto: fair and
    robust federated learning through personalization", ICML 2021, Algorithm 1). Nothing of v is ever sent.
    """

    def tasks() -> Iterator[Task]:
        for at in who.tolist():
            device, seed = int(crew.devices.index[at]), seed_for(int(crew.seeds[at]), DITTO)
            own = memory.shelf.newest(f"personal-{device}") or weights
            yield Task(device, *federation.data.examples(device), seed, start=own)

    plan = personal_plan(federation, round_num)
    for task, update in train_each(federation.engine, weights, tasks(), plan):
        own = {path: value + update.delta[path] for path, value in weights.items()}
        memory.shelf.replace(f"personal-{task.device}", round_num, own)
