"""The server's side of a round: packets in, next global model out.

```
packet ─ unpack ─ right round? ─ decode ─ finite ─ clip ─ exact sum ─┐   any of them may drop the packet,
packet ─ …                                                           ├─ mean ─ Algorithm.apply ─ next state
packet ─ …                                                           ┘   counted by reason; the round goes on
```
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from fl_mobile import wire
from fl_mobile.aggregation.exact_mean import Aggregator, WeightedMean
from fl_mobile.algorithms import Algorithm, Mean
from fl_mobile.client.feedback import plus
from fl_mobile.codecs.base import Codec
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import FitPlan, RoundReport, ServerState
from fl_mobile.tensors import Spec, Tensors, clip_by_norm

WEIGHTINGS = ("examples", "uniform")


@dataclass(frozen=True)
class Admission:
    """How much the server believes a packet.

    Attributes:
        weighting: ``examples`` (FedAvg's n_k) or ``uniform`` (every device counts 1).
        max_examples: A device's claim is clamped to this, so that one liar cannot own the average.
        clip_norm: Global L2 norm every decoded update is clipped to; 0 switches it off.
        max_staleness: Versions an update may be behind the model; 0 takes updates of this round only.
        staleness_exponent: a in the weight ``(1 + staleness)⁻ᵃ`` of a late update (Nguyen et al., "Federated learning
            with buffered asynchronous aggregation", AISTATS 2022, which takes ½).
    """

    weighting: str = "examples"
    max_examples: int = 10_000
    clip_norm: float = 0.0
    max_staleness: int = 0
    staleness_exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS or self.max_examples < 1 or self.clip_norm < 0:
            raise ConfigError(f"weighting must be one of {WEIGHTINGS}, max-examples ≥ 1, clip-norm ≥ 0; got {self}")
        if self.max_staleness < 0 or self.staleness_exponent < 0:
            raise ConfigError(f"max-staleness and staleness-exponent must be ≥ 0; got {self}")

    def clipped(self, delta: Tensors) -> Tensors:
        """Returns a decoded update as the server counts it."""
        return clip_by_norm(delta, self.clip_norm) if self.clip_norm else delta

    def local_steps(self, plan: FitPlan, examples: int) -> float:
        """Returns the local steps the server believes: no more than ``max_examples`` make."""
        return plan.local_steps(min(examples, self.max_examples))


STALENESS_UNIT = 1 << 8
"""Weights are whole numbers; where updates may be late they are multiples of 1/256 of a fresh one's."""


@dataclass
class Fold:
    """Some packets of a round, added up. Folds of disjoint packets merge to the fold of all, in any order.

    Attributes:
        total: The weighted sum.
        per_step: The weighted sum of updates divided by their local steps, if the algorithm asks for it.
        full_weight: What the weights would add up to if no update were late.
        upload_bytes: Length of packets → how many were accepted.
        losses: (training loss, weight) of each accepted packet.
        steps: (local steps, weight) of each accepted packet, beside ``per_step``.
        staleness: Versions behind → accepted packets.
        dropped: Reason → packets refused.
    """

    total: Aggregator
    per_step: Aggregator | None = None
    full_weight: int = 0
    upload_bytes: Counter[int] = field(default_factory=Counter)
    losses: list[tuple[float, int]] = field(default_factory=list)
    steps: list[tuple[float, int]] = field(default_factory=list)
    staleness: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def accepted(self) -> int:
        """Packets in the sum."""
        return self.upload_bytes.total()

    def merge(self, other: Fold) -> None:
        """Adds what ``other`` holds."""
        self.total.merge(other.total)
        if self.per_step is not None:
            self.per_step.merge(other.per_step)
        self.full_weight += other.full_weight
        self.upload_bytes.update(other.upload_bytes)  # `+=` would forget what `other` takes out
        self.losses += other.losses
        self.steps += other.steps
        self.staleness.update(other.staleness)
        self.dropped.update(other.dropped)


def fold(
    packets: Iterable[bytes],
    *,
    round_num: int,
    layout: wire.Layout,
    admission: Admission,
    aggregator: Callable[[Spec], Aggregator] = WeightedMean,
    plan: FitPlan | None = None,
    sign: Literal[1, -1] = 1,
) -> Fold:
    """Returns the packets added up; a bad one is dropped and counted, never raised. Memory: one packet at a time.

    Args:
        plan: What the devices did, if each update is also to be summed divided by its local steps.
        sign: −1 makes what takes the packets out again, to the last bit, of the fold it is merged into.
    """
    trainable = {path: tensor for path, tensor in layout.spec.items() if tensor.trainable}
    out = Fold(aggregator(layout.spec), aggregator(trainable) if plan else None)
    for packet in packets:
        try:
            admitted = _admit(packet, round_num, layout, admission)
            steps = admission.local_steps(plan, admitted.header.num_examples) if plan else 0.0
            _add(out, admitted, steps, trainable, sign)
        except WireError as error:
            out.dropped[error.reason] += sign
        else:
            out.upload_bytes[len(packet)] += sign
    return out


def finish_round(
    state: ServerState,
    folded: Fold,
    *,
    algorithm: Algorithm,
    prediction: Tensors | None = None,
    population: int = 0,
    plan: FitPlan | None = None,
    sent: Tensors | None = None,
) -> tuple[ServerState, RoundReport]:
    """Returns the state after this round, and what happened in it. With nothing folded the weights stay as they are.

    Args:
        prediction: What every device subtracted before encoding (`feedback`); added back to the mean.
        population: Devices in the federation; 0 is those of this round.
        plan: Local training of the round.
        sent: What travelled down beside the model, as devices decoded it.
    """
    delta, accepted = folded.total.result(), folded.accepted
    after = replace(state, round_num=state.round_num + 1)
    if delta is not None:
        delta = plus(_less_stale(delta, folded), prediction)
        per_step = folded.per_step.result() if folded.per_step else None
        mean = Mean(
            delta,
            per_step=_less_stale(per_step or {}, folded),
            steps=_weighted(folded.steps) if folded.steps else 1.0,
            share=accepted / (population or accepted),
            sent=sent or {},
            learning_rate=plan.learning_rate if plan else 0.0,
        )
        after = algorithm.apply(state, mean)
    report = RoundReport(
        *(state.round_num, accepted, dict(+folded.dropped), folded.total.weight),
        tuple(sorted(folded.upload_bytes.elements())),
        _weighted([(loss, weight) for loss, weight in folded.losses if math.isfinite(loss)]),
        delta,
        sum(late * count for late, count in folded.staleness.items()) / accepted if accepted else 0.0,
    )
    return after, report


def server_round(
    state: ServerState,
    packets: Iterable[bytes],
    *,
    algorithm: Algorithm,
    codec: Codec,
    aggregator: Callable[[Spec], Aggregator] = WeightedMean,
    admission: Admission | None = None,
    prediction: Tensors | None = None,
    plan: FitPlan | None = None,
) -> tuple[ServerState, RoundReport]:
    """Returns `finish_round` of `fold`: one server, one thread, and a federation of the devices that sent packets."""
    folded = fold(
        packets,
        round_num=state.round_num,
        layout=wire.Layout(state.spec, codec),
        admission=admission or Admission(),
        aggregator=aggregator,
        plan=plan if algorithm.per_step else None,
    )
    sent = dict(state.slots[algorithm.sends]) if algorithm.sends else None
    return finish_round(state, folded, algorithm=algorithm, prediction=prediction, plan=plan, sent=sent)


class _Admitted(NamedTuple):
    """A packet as the server counts it."""

    header: wire.Header
    delta: Tensors
    weight: int
    full_weight: int
    late: int


def _admit(packet: bytes, round_num: int, layout: wire.Layout, rules: Admission) -> _Admitted:
    header, delta = layout.unpack(packet)
    if header.kind != wire.UPDATE:
        raise WireError("kind", f"expected an update, got kind {header.kind}")
    late = round_num - header.base_round
    if header.round_num != header.base_round or not 0 <= late <= rules.max_staleness:
        raise WireError("round", f"update is for round {header.round_num}, this is round {round_num}")
    if header.num_examples < 1:
        raise WireError("examples", "an update must stand on at least one example")
    examples = min(header.num_examples, rules.max_examples) if rules.weighting == "examples" else 1
    full_weight = (STALENESS_UNIT if rules.max_staleness else 1) * examples
    weight = max(1, round(full_weight * (1 + late) ** -rules.staleness_exponent))
    return _Admitted(header, rules.clipped(delta), weight, full_weight, late)


def _add(out: Fold, one: _Admitted, steps: float, trainable: Spec, sign: int) -> None:
    weight = sign * one.weight
    out.total.add(one.delta, weight)
    if out.per_step is not None:  # steps are at least 1: what fitted the sum above fits this one
        out.per_step.add({path: one.delta[path] / np.float32(steps) for path in trainable}, weight)
        out.steps.append((steps, weight))
    out.full_weight += sign * one.full_weight
    out.losses.append((one.header.loss, weight))
    out.staleness[one.late] += sign


def _less_stale(mean: Tensors, folded: Fold) -> Tensors:
    """Returns the mean scaled down by what late updates lose, which nobody gets."""
    if folded.total.weight == folded.full_weight:
        return mean
    share = np.float32(folded.total.weight / folded.full_weight)
    return {path: value * share for path, value in mean.items()}


def _weighted(values: list[tuple[float, int]]) -> float:
    """Returns the weighted mean, NaN of nothing; fsum, because the order packets arrive in must not change it."""
    total = sum(weight for _, weight in values)
    return math.fsum(np.float64(value) * weight for value, weight in values) / total if total else math.nan
