"""Packets in; their aggregate and a receipt for each out.

```
packet ─ admit ─▶ add ─┐
packet ─ admit ─▶ add ─┼─▶ Fold ─▶ `server.step`      a packet that is refused is counted by reason; the round goes on
packet ─ admit ─✗      ┘
```
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np

from fl_mobile import wire
from fl_mobile.aggregation import AggregationRow, Aggregator, WeightedMean
from fl_mobile.errors import WireError
from fl_mobile.records import FitPlan, Receipt
from fl_mobile.server.admission import Admission, Admitted, admit_each
from fl_mobile.server.statistics import as_moments, moments
from fl_mobile.tensors import Tensors, at_once
from fl_mobile.wire.outcomes import attempt, replaced, those_left

TOO_FEW = "too-few"
"""Why packets do not count that are fewer than the aggregation rule needs."""


@dataclass(frozen=True)
class Folding:
    """Everything about a round's aggregation but its packets; picklable, because workers may be processes.

    Attributes:
        round_num: The server's round.
        layout: Of the upload packets.
        rule: How updates become one.
        admission: How much a packet is believed.
        plan: Local training of the round.
        per_step: Whether each update is also summed divided by its local steps.
        moved: Versions behind → how far that version's statistics were from the current ones (`server.statistics`).
    """

    round_num: int
    layout: wire.Layout
    rule: AggregationRow
    admission: Admission
    plan: FitPlan
    per_step: bool = False
    moved: Mapping[int, Tensors] = field(default_factory=dict)

    def counted(self, one: Admitted) -> Tensors:
        """Returns an update as it is aggregated."""
        return as_moments(one.delta, self._moments, self.moved.get(one.late))

    def admit_each(self, packets: Sequence[bytes]) -> list[Admitted | WireError]:
        """Returns each packet as it counts in this round, or why it does not: `server.admission.admit_each`."""
        return admit_each(
            packets,
            round_num=self.round_num,
            layout=self.layout,
            rules=self.admission,
            plan=self.plan,
        )

    @cached_property
    def _moments(self) -> dict[str, str]:
        return moments(self.layout.spec) if self.rule.mean else {}

    def __call__(self, packets: Iterable[bytes], *, sign: Literal[1, -1] = 1) -> Fold:
        """Returns the packets' aggregate; memory: a few packets at a time (`at_once`), or what the rule keeps.

        Args:
            sign: −1 makes what takes the packets out again, to the last bit, of the fold it is merged into; only rules
                that are ``subtractable``.
        """
        trainable = {path: tensor for path, tensor in self.layout.spec.items() if tensor.trainable}
        out = Fold(self.rule.make(self.layout.spec), self.rule.make(trainable) if self.per_step else None)
        waiting = iter(packets)
        while some := list(islice(waiting, at_once(self.layout.spec))):
            out.take(some, self, sign)
        return out

    @property
    def sum_bytes(self) -> int:
        """Bytes of the aggregate of a rule that keeps a running sum."""
        values = sum(t.size * (1 + (self.per_step and t.trainable)) for t in self.layout.spec.values())
        return 8 * values


@dataclass
class Fold:
    """Some packets of a round, aggregated. Folds of disjoint packets merge to the fold of all, in any order.

    Attributes:
        total: The aggregate.
        per_step: That of updates divided by their local steps, if the algorithm asks for it.
        full_weight: What the weights would add up to if no update were late.
        upload_bytes: Length of packets → how many were accepted.
        examples: Sum of what the accepted clients say they trained on, clamped.
        losses: (training loss, weight) of each accepted packet.
        steps: (local steps, weight) of each accepted packet, beside ``per_step``.
        staleness: Versions behind → accepted packets.
        dropped: Reason → packets refused.
        receipts: One a packet, in the order they came; none of packets taken out.
    """

    total: Aggregator
    per_step: Aggregator | None = None
    full_weight: int = 0
    upload_bytes: Counter[int] = field(default_factory=Counter)
    examples: int = 0
    losses: list[tuple[float, int]] = field(default_factory=list)
    steps: list[tuple[float, int]] = field(default_factory=list)
    staleness: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """Packets in the aggregate."""
        return self.upload_bytes.total()

    def take(self, packets: Sequence[bytes], folding: Folding, sign: Literal[1, -1]) -> None:
        """Adds packets, or takes them out again; a bad one is counted by reason, never raised."""
        admitted = folding.admit_each(packets)
        added = replaced(admitted, (attempt(self._add, one, folding, sign) for one in those_left(admitted)))
        for packet, one in zip(packets, added, strict=True):
            if isinstance(one, WireError):
                self.dropped[one.reason] += sign
                receipt = Receipt(reason=one.reason)
            else:
                self.upload_bytes[len(packet)] += sign
                receipt = one
            if sign > 0:
                self.receipts.append(receipt)

    def merge(self, other: Fold) -> None:
        """Adds what ``other`` holds; its receipts come after those that are here."""
        self.total.merge(other.total)
        if self.per_step is not None:
            self.per_step.merge(other.per_step)
        self.full_weight += other.full_weight
        self.upload_bytes.update(other.upload_bytes)  # `+=` would forget what `other` takes out
        self.examples += other.examples
        self.losses += other.losses
        self.steps += other.steps
        self.staleness.update(other.staleness)
        self.dropped.update(other.dropped)
        self.receipts += other.receipts

    def _add(self, one: Admitted, folding: Folding, sign: int) -> Receipt:
        weight, steps = sign * one.receipt.weight, one.receipt.local_steps
        self.total.add(folding.counted(one), weight)
        if self.per_step is not None:  # steps are at least 1: what fitted the sum above fits this one
            paths = (path for path in one.delta if path in self.per_step.spec)
            self.per_step.add({path: one.delta[path] / np.float32(steps) for path in paths}, weight)
            self.steps.append((steps, weight))
        self.full_weight += sign * one.full_weight
        self.losses.append((one.header.loss, weight))
        self.staleness[one.late] += sign
        self.examples += sign * min(one.header.num_examples, folding.admission.max_examples)
        return one.receipt


def closed(folded: Fold, rule: AggregationRow) -> Fold:
    """Returns a round's fold once all of its packets are in: if they are too few for what the rule promises, none of
    them counts. What it would give any single one of them could have chosen.
    """
    if not folded.accepted or not rule.too_few(folded.accepted):
        return folded
    dropped = folded.dropped + Counter({TOO_FEW: folded.accepted})
    receipts = [Receipt(reason=TOO_FEW) if one.accepted else one for one in folded.receipts]
    return Fold(WeightedMean({}), dropped=dropped, receipts=receipts)


def weighted(values: list[tuple[float, int]]) -> float:
    """Returns the weighted mean, NaN of nothing; fsum, because the order packets arrive in must not change it."""
    total = sum(weight for _, weight in values)
    return math.fsum(np.float64(value) * weight for value, weight in values) / total if total else math.nan
