"""A crew trains on the engine and its clients encode; the server's workers fold what arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from device_sim.attacks.attackers import Attackers, Lies
from device_sim.engines import Engine, Task
from device_sim.experiment.personal import DITTO
from device_sim.rounds.clients import Clients, Ready
from device_sim.rounds.crew import Crew
from device_sim.rounds.own import private_of, train_own_models
from device_sim.rounds.step import Step
from fl_mobile.client.answer import Answer, terms_of
from fl_mobile.client.state import pull_of
from fl_mobile.measurements.sources import write_update
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
    lies = lies_of(federation.attackers, crew.devices.index[who])
    waits = lies is not None and lies.attack.collude is not None  # who knows all others answers last, out of order
    folding = step.folding if fold and federation.rules.rule.subtractable and not waits else None
    private = {path: weights[path] for path in weights if path in federation.private}
    clients = Clients(
        terms_of(step.agreement, step.assignment, step.decoded, private),
        norms=federation.experiment.policy.asks_norms,
        keep=_kept(step, crew.devices.index[who]),
        folding=folding,
        lies=lies,
        far=not federation.engine.shares_memory,
        secret=step.memory.secret,
    )
    out = Trained(folded=folding(()) if folding else None)

    def train(some: np.ndarray, clients: Clients) -> None:
        for ready in federation.engine.train(weights, _tasks(step, crew, some), step.assignment.plan, clients):
            out.add(ready, folding)

    if lies is not None and waits:
        _train_liars_last(lies=lies, crew=crew, who=who, clients=clients, train=train, out=out)
    else:
        train(who, clients)
    for client, made in zip(out.clients, out.answers, strict=True):
        if client in clients.keep:
            _write_raw(step, client, made)
    if step.memory.secret:
        step.memory.charge_answers(out.clients)
    if federation.experiment.personal.method == DITTO:
        train_own_models(step, crew, who)
    return out


def lies_of(attackers: Attackers | None, clients: np.ndarray) -> Lies | None:
    """Returns what the malicious ones of some clients ``int64[n]`` do; None if none of them is."""
    if attackers is None or not (malicious := attackers.among(clients)).any():
        return None
    return Lies(attackers.attack, frozenset(clients[malicious].tolist()))


def _train_liars_last(
    lies: Lies,
    crew: Crew,
    who: np.ndarray,
    clients: Clients,
    train: Callable[[np.ndarray, Clients], None],
    out: Trained,
) -> None:
    """Has honest clients answer first, and attackers once they know what those have trained; then restores the order.

    Args:
        train: Trains the crew's clients at some positions into ``out``.
    """
    index = crew.devices.index
    malicious = np.isin(index[who], list(lies.who))
    honest = who[~malicious]
    train(honest, replace(clients, keep=frozenset(index[honest].tolist())))
    seen = [made.delta for made in out.answers if made.delta is not None]
    out.answers = [
        made if client in clients.keep else replace(made, delta=None)
        for client, made in zip(out.clients, out.answers, strict=True)
    ]
    train(who[malicious], replace(clients, lies=lies.knowing(seen, clients.terms.layout.spec)))
    order = np.argsort(np.concatenate([honest, who[malicious]]), kind="stable").tolist()
    out.clients, out.answers = [out.clients[i] for i in order], [out.answers[i] for i in order]


def _tasks(step: Step, crew: Crew, who: np.ndarray) -> Iterator[Task]:
    """Yields what the crew's clients at positions ``who`` train on; what is the same for all is looked up once."""
    federation, decoded, agreement = step.federation, step.decoded, step.agreement
    # Engines want a pull for every weight; nothing pulls on private ones.
    still = {
        path: np.zeros_like(step.weights[path])
        for path in federation.private
        if agreement.algorithm.variate is not None and federation.engine.spec[path].trainable
    }
    examples, attackers, keep = federation.data.examples, federation.attackers, step.clients_keep
    for client, seed in zip(crew.devices.index[who].tolist(), crew.seeds[who].tolist(), strict=True):
        x, y = examples(client)
        if attackers:
            x, y = attackers.examples(client, x, y, seed)
        y = federation.dataset.trained_targets(y, federation.data.weights(client))
        if not keep:
            yield Task(client, x, y, seed)
            continue
        kept = step.memory.client_state(client)
        pull = pull_of(agreement, decoded, kept)
        yield Task(
            *(client, x, y, seed),
            start=private_of(federation, kept),
            residual=kept.residual,
            pull=None if pull is None else pull | still,
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
    """Returns the clients whose raw update is kept, two a round at even distances over the run; no private ones."""
    keys = step.federation.experiment
    wanted, rounds = keys.output.keep_updates * (not keys.privacy.on and not keys.masks.on), keys.train.rounds
    chosen = {rounds * i // max(1, wanted // 2) for i in range(max(1, wanted // 2))}
    return frozenset(clients[: min(2, wanted)].tolist() if wanted and step.round_num in chosen else ())


def _write_raw(step: Step, client: int, made: Answer) -> None:
    if made.delta is None:
        return
    write_update(step.updates / f"round-{step.round_num:05d}-device-{client:06d}.npz", made.delta)
    tensors = step.agreement.spec.items()
    spec = [{"path": path, "shape": t.shape, "trainable": t.trainable} for path, t in tensors]
    write_json(step.updates / "spec.json", spec)
