"""A crew trains on the engine and its clients encode; the server's workers fold what arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from device_sim.engines import Engine, Task
from device_sim.experiment.personal import DITTO
from device_sim.rounds.clients import Clients, Ready
from device_sim.rounds.crew import Crew
from device_sim.rounds.own import private_of, train_own_models
from device_sim.rounds.step import Step
from fl_mobile.client.answer import Answer, terms_of
from fl_mobile.client.state import ClientState, pull_of
from fl_mobile.measure.sources import write_update
from fl_mobile.server.fold import Fold, Folding
from fl_mobile.storage.files import write_json

FOLD_BYTES = 1 << 20
"""Packets of less than this in all are folded where they are; handing them out would cost more."""


@dataclass
class Trained:
    """What the clients of a crew that trained have ready, in the order they were asked to.

    Attributes:
        clients: Their indices in the fleet.
        answers: One a client.
        folded: All their packets aggregated, of a rule that can take out again what does not arrive; else None.
    """

    clients: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    folded: Fold | None = None

    def add(self, ready: Ready, folding: Folding | None) -> None:
        """Adds a chunk; its packets are folded here if its worker left that to us."""
        self.clients += ready.clients
        self.answers += ready.answers
        if folding and self.folded:
            folded = ready.folded or folding([made.packet for made in ready.answers])
            self.folded.merge(folded)


def train_crew(step: Step, crew: Crew, who: np.ndarray, *, fold: bool) -> Trained:
    """Returns what the crew's clients at positions ``who`` ``int64[m]`` have ready, in that order.

    Args:
        fold: Whether packets are aggregated as they are made, before it is known which of them arrive.

    Raises:
        DivergedError: Local training gave NaN or Inf; names client and round.
    """
    federation, weights = step.federation, step.weights
    folding = step.folding if fold and federation.rules.rule.subtractable else None
    private = {path: weights[path] for path in weights if path in federation.private}
    clients = Clients(
        terms_of(step.agreement, step.assignment, step.decoded, private),
        norms=federation.experiment.policy.asks_norms,
        keep=_kept(step, crew.devices.index[who]),
        folding=folding,
        far=not federation.engine.shares_memory,
    )
    out = Trained(folded=folding(()) if folding else None)

    def tasks() -> Iterator[Task]:
        for at in who.tolist():
            client = int(crew.devices.index[at])
            yield _task(step, crew, at, step.memory.client_state(client))

    for ready in federation.engine.train(weights, tasks(), step.assignment.plan, clients):
        out.add(ready, folding)
    for client, made in zip(out.clients, out.answers, strict=True):
        _write_raw(step, client, made)
    if federation.experiment.personal.method == DITTO:
        train_own_models(step, crew, who)
    return out


def _task(step: Step, crew: Crew, at: int, kept: ClientState) -> Task:
    federation, client = step.federation, int(crew.devices.index[at])
    pull = pull_of(step.agreement, step.decoded, kept)
    if pull is not None:  # engines want one for every weight; nothing pulls on private ones
        still = (path for path in federation.private if federation.engine.spec[path].trainable)
        pull |= {path: np.zeros_like(step.weights[path]) for path in still}
    return Task(
        client,
        *federation.data.examples(client),
        int(crew.seeds[at]),
        start=private_of(federation, kept),
        residual=kept.residual,
        pull=pull,
    )


def fold_packets(engine: Engine, packets: Sequence[bytes], folding: Folding, *, sign: Literal[1, -1] = 1) -> Fold:
    """Returns all packets folded, in parallel where that is worth it; the cut does not matter to exact sums."""
    parts = 1 if sum(map(len, packets)) < FOLD_BYTES else min(len(packets), 2 * engine.workers)
    cuts = [len(packets) * part // parts for part in range(parts + 1)]
    pieces = [packets[a:b] for a, b in pairwise(cuts)]
    futures = [engine.submit(partial(folding, sign=sign), piece) for piece in pieces[1:]]
    total = folding(pieces[0], sign=sign)
    for future in futures:  # in order, so that receipts are
        total.merge(future.result())
    return total


def _kept(step: Step, clients: np.ndarray) -> frozenset[int]:
    """Returns the clients whose raw update is kept: two a round at even distances over the run."""
    keys = step.federation.experiment
    wanted, rounds = keys.output.keep_updates, keys.train.rounds
    chosen = {rounds * i // max(1, wanted // 2) for i in range(max(1, wanted // 2))}
    return frozenset(clients[: min(2, wanted)].tolist() if wanted and step.round_num in chosen else ())


def _write_raw(step: Step, client: int, made: Answer) -> None:
    if made.delta is None:
        return
    write_update(step.updates / f"round-{step.round_num:05d}-device-{client:06d}.npz", made.delta)
    tensors = step.agreement.spec.items()
    spec = [{"path": path, "shape": t.shape, "trainable": t.trainable} for path, t in tensors]
    write_json(step.updates / "spec.json", spec)
