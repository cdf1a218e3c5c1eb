"""What a client has of its own: private tensors and, under Ditto, a whole model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from device_sim.engines import Task, train_each
from device_sim.experiment.personal import DITTO, ONLY_HEAD
from device_sim.federation.federation import Federation
from device_sim.rounds.crew import Crew
from device_sim.rounds.step import Step
from fl_mobile.client.private import head_paths
from fl_mobile.client.state import ClientState
from fl_mobile.records import FitPlan
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Tensors


def private_of(federation: Federation, kept: ClientState) -> Tensors | None:
    """Returns the tensors a client keeps to itself; the first ones, which ship with the app, if it never trained."""
    if not federation.private:
        return None
    return kept.private or {path: federation.engine.initial[path] for path in federation.private}


def personal_plan(federation: Federation, round_num: int) -> FitPlan:
    """Returns how a client trains what becomes its own model."""
    keys = federation.experiment.personal
    plan = federation.plain_plan(round_num)
    return replace(
        plan,
        epochs=keys.epochs,
        learning_rate=keys.learning_rate or plan.learning_rate,
        proximal_mu=keys.mu if keys.method == DITTO else 0.0,
        trained=tuple(sorted(head_paths(federation.engine.spec))) if keys.method == ONLY_HEAD else (),
    )


def train_own_models(step: Step, crew: Crew, who: np.ndarray) -> None:
    """Trains the personal models of the crew's clients at positions ``who`` ``int64[m]``: Ditto's second half.

    ``min Lₖ(v) + λ/2·‖v − w‖²`` from where v was left, w being the model just received (Li et al., "Ditto: fair and
    robust federated learning through personalization", ICML 2021, Algorithm 1). Nothing of v is ever sent.
    """
    federation, shelf, weights = step.federation, step.memory.shelf, step.weights

    def tasks() -> Iterator[Task]:
        for at in who.tolist():
            client, seed = int(crew.devices.index[at]), seed_for(int(crew.seeds[at]), DITTO)
            own = shelf.newest(f"personal-{client}") or weights
            yield Task(client, *federation.examples(client), seed, start=own)

    plan = personal_plan(federation, step.round_num)
    for task, update in train_each(federation.engine, weights, tasks(), plan):
        own = {path: value + update.delta[path] for path, value in weights.items()}
        shelf.replace(f"personal-{task.device}", step.round_num, own)
