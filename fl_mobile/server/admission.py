"""How much the server believes a packet, and the checks that stand between a packet and the sum.

```
packet ─ header ─ right kind? right round? ─ decode ─ finite ─ clip ─▶ Admitted    any of them refuses it, by reason
```
The round is looked at before anything is decoded: a stale packet costs its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fl_mobile import wire
from fl_mobile.codecs.base import norm_gain
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import FitPlan, Receipt
from fl_mobile.tensors import Tensors, clip_by_norm
from fl_mobile.wire.outcomes import attempt, replaced, those_left

WEIGHTINGS = ("examples", "uniform")

STALENESS_UNIT = 1 << 8
"""Weights are whole numbers; where updates may be late they are multiples of 1/256 of a fresh one's."""


@dataclass(frozen=True)
class Admission:
    """How much the server believes a packet.

    Attributes:
        weighting: ``examples`` (FedAvg's n_k) or ``uniform`` (every client counts 1).
        max_examples: A client's claim is clamped to this, so that one liar cannot own the average.
        clip_norm: Global L2 norm every decoded update is clipped to; 0 switches it off. Of codecs that inflate norms
            clients clip to it before they encode, and the server to what that decodes to at most (`codecs.norm_gain`).
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

    @property
    def unit(self) -> int:
        """What a fresh update of one example weighs."""
        return STALENESS_UNIT if self.max_staleness else 1


class Admitted(NamedTuple):
    """A packet as the server counts it.

    Attributes:
        header: What it says of itself.
        delta: The decoded update, clipped.
        receipt: What its client is told.
        full_weight: What it would weigh if it were not late.
        late: Versions behind.
    """

    header: wire.Header
    delta: Tensors
    receipt: Receipt
    full_weight: int
    late: int


def header_of(packet: bytes, *, round_num: int, layout: wire.Layout, rules: Admission) -> wire.Header:
    """Returns what a packet says of itself, if it may be in round ``round_num``; nothing of it is decoded.

    Raises:
        WireError: It does not count; the reason says why.
    """
    header = layout.header(packet)
    if header.kind != wire.UPDATE:
        raise WireError("kind", f"expected an update, got kind {header.kind}")
    late = round_num - header.base_round
    if header.round_num != header.base_round or not 0 <= late <= rules.max_staleness:
        raise WireError("round", f"update is for round {header.round_num}, this is round {round_num}")
    if header.num_examples < 1:
        raise WireError("examples", "an update must stand on at least one example")
    return header


def admit_each(
    packets: Sequence[bytes], *, round_num: int, layout: wire.Layout, rules: Admission, plan: FitPlan
) -> list[Admitted | WireError]:
    """Returns each packet as it counts in round ``round_num``, or the error whose reason says why it does not.

    Args:
        packets: They are decoded together where the codec can.
        layout: Of the agreed spec and the codec published for the round.
        plan: Local training of the round, from which follows how far the client moved.
    """
    headers = [attempt(partial(header_of, round_num=round_num, layout=layout, rules=rules), one) for one in packets]
    good = [packet for packet, header in zip(packets, headers, strict=True) if not isinstance(header, WireError)]
    bound = rules.clip_norm * norm_gain(layout.codec, layout.coded) if rules.clip_norm else 0.0

    def admitted(packet: wire.Packet) -> Admitted:
        header, delta = packet
        late = round_num - header.base_round
        examples = min(header.num_examples, rules.max_examples)
        full_weight = rules.unit * (examples if rules.weighting == "examples" else 1)
        weight = max(1, round(full_weight * (1 + late) ** -rules.staleness_exponent))
        receipt = Receipt(weight=weight, local_steps=plan.local_steps(examples))
        if bound:
            delta = clip_by_norm(delta, bound)
        return Admitted(header=header, delta=delta, receipt=receipt, full_weight=full_weight, late=late)

    unpacked = replaced(headers, layout.unpack_each(good, those_left(headers)))
    return replaced(unpacked, map(admitted, those_left(unpacked)))
