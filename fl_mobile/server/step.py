"""The server's step: once a round, the aggregate becomes the next global model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fl_mobile import wire
from fl_mobile.aggregation import AGGREGATORS, AggregationRow
from fl_mobile.aggregation.summed_fields import SummedFields
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import Mean
from fl_mobile.client.feedback import plus, predicted
from fl_mobile.codecs.summed import next_step
from fl_mobile.errors import ConfigError
from fl_mobile.privacy import ClippedSum, PrivacyRules, release
from fl_mobile.records import Assignment, PrivacyState, RoundReport, ServerState
from fl_mobile.server.admission import Admission
from fl_mobile.server.averaging import Averaging
from fl_mobile.server.fold import Fold, Folding, closed, weighted
from fl_mobile.server.rate import RateControl
from fl_mobile.server.schedule import Schedule, scaled
from fl_mobile.server.snap import snapped
from fl_mobile.server.statistics import from_moments, moments, no_less_than_zero
from fl_mobile.tensors import Tensors, global_norm
from fl_mobile.wire.download import Decoded
from fl_mobile.wire.pruning_mask import apply_masks


@dataclass(frozen=True)
class ServerRules:
    """What only the server needs to know; the rest is in the agreement.

    Attributes:
        admission: How much a packet is believed.
        rule: How updates become one; a row of `AGGREGATORS`.
        population: Clients in the federation; 0 is those of a round.
        population_examples: That they hold together, each as clamped; 0 is not known.
        rate_control: What adapts the upload codec's step, if anything does.
        privacy: How sums are released under differential privacy, in place of ``rule``; None: as they are.
        schedule: Which part of its step the algorithm takes in which round.
        averaging: Which mean over rounds is the model.
        moves_step: Whether the step of fields that are summed under masks follows from the last sum.
        ternary: Of a step that is forwarded as sums: which share of them move, by sign; see `server.snap`. 0: all.
    """

    admission: Admission = field(default_factory=Admission)
    rule: AggregationRow = AGGREGATORS["mean"]
    population: int = 0
    population_examples: int = 0
    rate_control: RateControl | None = None
    privacy: PrivacyRules | None = None
    schedule: Schedule = field(default_factory=Schedule)
    averaging: Averaging = field(default_factory=Averaging)
    moves_step: bool = False
    ternary: float = 0.0

    def __post_init__(self) -> None:
        believed = self.admission
        if self.privacy and (believed.weighting != "uniform" or believed.clip_norm or believed.max_staleness):
            raise ConfigError(f"a private sum clips by itself and counts every fresh update once; got {believed}")
        if self.privacy and self.rate_control:
            raise ConfigError("no rate control under privacy: the step it publishes follows from clients' packets")


def folding_of(
    agreement: Agreement,
    rules: ServerRules,
    assignment: Assignment,
    moved: Mapping[int, Tensors] | None = None,
    reference: Tensors | None = None,
) -> Folding:
    """Returns how the packets of a round are aggregated.

    Args:
        moved: Versions behind → how far that version's statistics were from the current ones; late packets need it.
        reference: The server's own update of the round, of a rule that needs one.
    """
    return Folding(
        round_num=assignment.round_num,
        layout=wire.Layout(agreement.spec, assignment.upload),
        rule=rules.privacy.rule(assignment.clip_norm) if rules.privacy else rules.rule.beside(reference),
        admission=rules.admission,
        plan=assignment.plan,
        per_step=agreement.algorithm.per_step,
        moved=moved or {},
    )


def step(
    *,
    agreement: Agreement,
    rules: ServerRules,
    state: ServerState,
    assignment: Assignment,
    decoded: Decoded,
    folded: Fold,
) -> tuple[ServerState, RoundReport]:
    """Returns the state after this round, and what happened in it.

    With nothing folded the weights stay as they are; under privacy that nobody came must not show, and noise is added.

    Args:
        decoded: What clients decoded of the version that was published: the prediction they took off their updates
            is added back to the mean, what is pruned in it stays pruned.
    """
    if rules.privacy is None:
        folded = closed(folded, rules.rule)
    accepted = folded.accepted
    delta, privacy = _aggregate(rules, state, folded)
    state = replace(state, privacy=privacy)
    after = replace(state, round_num=state.round_num + 1)
    if delta is not None:
        pairs = moments(agreement.spec)
        if rules.rule.mean:
            delta = from_moments(_less_stale(delta, folded), pairs, state.weights)
        else:  # no update weighs less than another, and none is late
            delta = no_less_than_zero(delta, pairs, state.weights)
        delta = plus(delta, decoded.prediction)
        per_step = folded.per_step.result() if folded.per_step else None
        mean = Mean(
            delta,
            per_step=_less_stale(per_step or {}, folded),
            steps=weighted(folded.steps) if folded.steps else 1.0,
            share=_share(rules, folded),
            sent=decoded.beside,
            learning_rate=assignment.plan.learning_rate,
        )
        start = rules.averaging.iterate(state)
        after = scaled(start, agreement.algorithm.apply(start, mean), rules.schedule.factor(state.round_num))
        after = rules.averaging.follow(snapped(agreement, start, after, rules.ternary))
    if decoded.masks:
        averages = {name: apply_masks(tensors, decoded.masks) for name, tensors in after.averages.items()}
        after = replace(after, weights=apply_masks(after.weights, decoded.masks), averages=averages)
    report = RoundReport(
        round_num=state.round_num,
        accepted=accepted,
        dropped=dict(+folded.dropped),
        num_examples=folded.examples,
        upload_bytes=tuple(sorted(folded.upload_bytes.elements())),
        loss=weighted([(loss, weight) for loss, weight in folded.losses if math.isfinite(loss)]),
        mean=delta,
        staleness=_mean_staleness(folded.staleness, accepted),
        weights_norm=global_norm({path: value for path, value in after.weights.items() if after.spec[path].trainable}),
    )
    if rules.moves_step and isinstance(folded.total, SummedFields) and accepted and after.upload_step is not None:
        after = replace(after, upload_step=next_step(after.upload_step, folded.total.total, accepted))
    return _remembered(agreement, rules, after, report), report


def _aggregate(rules: ServerRules, state: ServerState, folded: Fold) -> tuple[Tensors | None, PrivacyState | None]:
    """Returns what the updates come to, and the state that a release under privacy has been charged to."""
    if rules.privacy is None:
        return folded.total.result(), None
    assert isinstance(folded.total, ClippedSum)
    assert state.privacy is not None
    return release(folded.total, rules.privacy, state.privacy, state.round_num)


def _share(rules: ServerRules, folded: Fold) -> float:
    """Returns the weight of the accepted updates over that of all clients, as far as that is known."""
    if rules.admission.weighting == "examples" and rules.population_examples:
        return folded.examples / rules.population_examples
    return folded.accepted / max(1, rules.population or folded.accepted)


def _remembered(agreement: Agreement, rules: ServerRules, after: ServerState, report: RoundReport) -> ServerState:
    """Returns the state with what the next round's publication needs of this one."""
    if agreement.memory == "cafe" and report.mean is not None:
        after = replace(after, mean=predicted(report.mean, after.mean, agreement.spec))
    if rules.rate_control and after.upload_step is not None:
        after = replace(after, upload_step=rules.rate_control.next_step(after.upload_step, report.upload_bytes))
    return after


def _mean_staleness(staleness: Mapping[int, int], accepted: int) -> float:
    return sum(late * count for late, count in staleness.items()) / accepted if accepted else 0.0


def _less_stale(mean: Tensors, folded: Fold) -> Tensors:
    """Returns the mean scaled down by what late updates lose, which nobody gets."""
    if folded.total.weight == folded.full_weight:
        return mean
    share = np.float32(folded.total.weight / folded.full_weight)
    return {path: value * share for path, value in mean.items()}
