"""The clients' half of a step, on the engine's workers right after training: update in, packet out.

Where a rule can take updates out of its sum again, the server's first half may follow at once, while a packet is still
in the processor's cache: see `Ready.folded`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from device_sim.attacks.attackers import Lies
from device_sim.engines import Task
from fl_mobile.client.answer import Answer, Terms, answer
from fl_mobile.errors import DivergedError
from fl_mobile.privacy.keys import derive
from fl_mobile.records import Update
from fl_mobile.seeds import rng_for
from fl_mobile.server.fold import Fold, Folding

SIMULATED = "simulation"
"""Names the run of simulated clients; their secrets are this run's alone."""


@dataclass(frozen=True)
class Ready:
    """What some clients have ready.

    Attributes:
        clients: Their indices in the fleet, in task order.
        answers: One a client.
        folded: All their packets aggregated, as if each of them arrives, if that was done. Sums are exact: what does
            not arrive can be taken out again.
    """

    clients: list[int]
    answers: list[Answer]
    folded: Fold | None


@dataclass(frozen=True)
class Clients:
    """What every client of a step is told; called on a chunk of tasks and their updates.

    Attributes:
        terms: Of the round.
        norms: Whether `Answer.norm` is to be measured.
        keep: Clients whose raw update is to be returned.
        folding: Aggregates a chunk's packets; None leaves them as they are.
        lies: What malicious ones do, if there are any.
        secret: What every client's own secret follows from, where they add noise.
        far: Whether results cross to another process: packets then go home as they are, unless their sum is smaller.
    """

    terms: Terms
    norms: bool = False
    keep: frozenset[int] = frozenset()
    folding: Folding | None = None
    lies: Lies | None = None
    far: bool = False
    secret: bytes = field(default=b"", repr=False)

    def __call__(self, tasks: Sequence[Task], updates: Sequence[Update]) -> Ready:
        """Returns every client's answer.

        Raises:
            DivergedError: Local training gave NaN or Inf; names client and round.
        """
        ready = Ready([task.device for task in tasks], [], None)

        def packets() -> Iterator[bytes]:
            for task, update in zip(tasks, updates, strict=True):
                ready.answers.append(self._answer(task, update))
                yield ready.answers[-1].packet

        if self.folding is None:
            for _ in packets():
                pass
            return ready
        if not self.far:
            return Ready(ready.clients, ready.answers, self.folding(packets()))
        made = list(packets())
        smaller = self.folding.sum_bytes < sum(map(len, made))
        return Ready(ready.clients, ready.answers, self.folding(made) if smaller else None)

    def _answer(self, task: Task, update: Update) -> Answer:
        rng, kept = rng_for(task.seed, "codec"), task.device in self.keep
        if self.lies:
            update = self.lies.update(task.device, update, task.seed)
        try:
            secret = derive(self.secret, "device", task.device) if self.secret else b""
            made = answer(
                self.terms,
                update,
                rng,
                residual=task.residual,
                secret=secret,
                run=SIMULATED,
                norm=self.norms,
                keep_delta=kept,
            )
        except DivergedError as error:
            raise DivergedError(f"device {task.device}, round {self.terms.round_num + 1}: {error}") from None
        return replace(made, packet=self.lies.packet(task.device, made.packet, task.seed)) if self.lies else made
