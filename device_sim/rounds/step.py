"""One server step while it is played: everything that its parts hand to one another, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from device_sim.engines import Task, train_each
from device_sim.federation.federation import Federation
from device_sim.rounds.memory import FleetMemory
from fl_mobile.agreement import Agreement
from fl_mobile.client.state import keeps_anything
from fl_mobile.records import Assignment, RoundReport, ServerState
from fl_mobile.seeds import seed_for
from fl_mobile.server.fold import Fold, Folding
from fl_mobile.server.publish import Publication, assign, moved_since, publish
from fl_mobile.server.step import folding_of
from fl_mobile.server.step import step as server_step
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Decoded
from fl_mobile.wire.pruning_mask import apply_masks

SERVER = -1
"""Stands for a device's index where the server trains."""


@dataclass(frozen=True)
class Step:
    """A published version of the model, and the federation that trains it.

    Attributes:
        memory: Changed in place.
        state: The server's, before the step.
        assignment: What clients are asked.
        publication: How the model gets to them.
        updates: Folder that receives a few raw updates, for `fl-mobile measure`.
    """

    federation: Federation
    memory: FleetMemory
    state: ServerState
    assignment: Assignment
    publication: Publication
    updates: Path

    @property
    def round_num(self) -> int:
        """The version that clients train from."""
        return self.state.round_num

    @property
    def agreement(self) -> Agreement:
        """What both roles know."""
        return self.federation.agreement

    @property
    def decoded(self) -> Decoded:
        """The model as clients decode it."""
        return self.publication.decoded

    @cached_property
    def clients_keep(self) -> bool:
        """Whether clients keep anything from step to step; if not, nobody need look for it."""
        return keeps_anything(self.agreement, private=bool(self.federation.private))

    @cached_property
    def folding(self) -> Folding:
        """How packets are aggregated."""
        rules = self.federation.rules
        moved = moved_since(self.memory.shelf, self.round_num, rules.admission.max_staleness)
        return folding_of(
            agreement=self.agreement, rules=rules, assignment=self.assignment, moved=moved, reference=self._reference
        )

    @property
    def _reference(self) -> Tensors | None:
        """What the server trains itself on public examples, as its clients do, if its aggregation rule needs that."""
        federation, public = self.federation, self.federation.dataset.public
        if not federation.rules.rule.reference or public is None:
            return None
        y = federation.dataset.trained_targets(public.y, public.weight)
        task = Task(SERVER, public.x, y, seed_for(federation.experiment.seed, self.round_num, "server-update"))
        ((_, update),) = train_each(federation.engine, self.weights, [task], self.assignment.plan)
        return apply_masks({path: update.delta[path] for path in self.agreement.spec}, self.decoded.masks)

    @cached_property
    def weights(self) -> Tensors:
        """The whole model that local training starts from; private tensors are the app's."""
        return self.federation.whole(self.decoded.weights)


def open_step(federation: Federation, memory: FleetMemory, state: ServerState, updates: Path) -> Step:
    """Returns the step that follows ``state``, published."""
    plan = federation.plain_plan(state.round_num)
    state, assignment = assign(federation.agreement, federation.rules, state, plan)
    late = federation.rules.admission.max_staleness
    publication = publish(federation.agreement, state, memory.shelf, max_staleness=late)
    return Step(
        federation=federation,
        memory=memory,
        state=state,
        assignment=assignment,
        publication=publication,
        updates=updates,
    )


def close_step(step: Step, folded: Fold) -> tuple[ServerState, RoundReport]:
    """Returns the state after the step, and what happened in it."""
    return server_step(
        agreement=step.agreement,
        rules=step.federation.rules,
        state=step.state,
        assignment=step.assignment,
        decoded=step.decoded,
        folded=folded,
    )
