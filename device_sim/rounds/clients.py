"""The clients' half of a step, on the engine's workers right after training: update in, packet out.

Where a rule can take updates out of its sum again, the server's first half may follow at once, while a packet is still
in the processor's cache: see `Ready.folded`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from device_sim.attacks.attackers import Lies
from device_sim.engines import Task
from fl_mobile.client.answer import Answer, Own, Terms, answer_each
from fl_mobile.errors import DivergedError
from fl_mobile.privacy.keys import derive
from fl_mobile.records import Update
from fl_mobile.seeds import seed_for
from fl_mobile.server.fold import Fold, Folding
from fl_mobile.tensors import at_once

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
        ready, together = Ready([task.device for task in tasks], [], None), at_once(self.terms.layout.spec)

        def packets() -> Iterator[bytes]:
            for first in range(0, len(tasks), together):
                made = self._answers(tasks[first : first + together], updates[first : first + together])
                ready.answers.extend(made)
                yield from [one.packet for one in made]

        if self.folding is None:
            for _ in packets():
                pass
            return ready
        if not self.far:
            return Ready(ready.clients, ready.answers, self.folding(packets()))
        made = list(packets())
        smaller = self.folding.sum_bytes < sum(map(len, made))
        return Ready(ready.clients, ready.answers, self.folding(made) if smaller else None)

    def _answers(self, tasks: Sequence[Task], updates: Sequence[Update]) -> list[Answer]:
        clients = [self._own(*one) for one in zip(tasks, updates, strict=True)]
        try:
            made = answer_each(self.terms, clients, run=SIMULATED, norm=self.norms)
        except DivergedError as error:
            if len(tasks) > 1:  # one by one, until it is the one that diverged
                return [self._answers([task], [update])[0] for task, update in zip(tasks, updates, strict=True)]
            raise DivergedError(f"device {tasks[0].device}, round {self.terms.round_num + 1}: {error}") from None
        if not self.lies:
            return made
        told = zip(tasks, made, strict=True)
        return [replace(one, packet=self.lies.packet(task.device, one.packet, task.seed)) for task, one in told]

    def _own(self, task: Task, update: Update) -> Own:
        return Own(
            update=self.lies.update(task.device, update, task.seed) if self.lies else update,
            key=seed_for(task.seed, "codec"),
            residual=task.residual,
            secret=derive(self.secret, "device", task.device) if self.secret else b"",
            keep_delta=task.device in self.keep,
        )
