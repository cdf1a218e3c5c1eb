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
from dataclasses import dataclass, replace

import numpy as np

from fl_mobile import wire
from fl_mobile.aggregate import Aggregator, WeightedMean
from fl_mobile.algorithms import Algorithm
from fl_mobile.codecs.base import Codec
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.feedback import plus
from fl_mobile.records import RoundReport, ServerState
from fl_mobile.tensors import Spec, Tensors, clip_by_norm

WEIGHTINGS = ("examples", "uniform")


@dataclass(frozen=True)
class Admission:
    """How much the server believes a packet.

    Attributes:
        weighting: ``examples`` (FedAvg's n_k) or ``uniform`` (every device counts 1).
        max_examples: A device's claim is clamped to this, so that one liar cannot own the average.
        clip_norm: Global L2 norm every decoded update is clipped to; 0 switches it off.
    """

    weighting: str = "examples"
    max_examples: int = 10_000
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS or self.max_examples < 1 or self.clip_norm < 0:
            raise ConfigError(f"weighting must be one of {WEIGHTINGS}, max-examples ≥ 1, clip-norm ≥ 0; got {self}")


def server_round(
    state: ServerState,
    packets: Iterable[bytes],
    *,
    algorithm: Algorithm,
    codec: Codec,
    aggregator: Callable[[Spec], Aggregator] = WeightedMean,
    admission: Admission | None = None,
    prediction: Tensors | None = None,
) -> tuple[ServerState, RoundReport]:
    """Returns the state after this round, and what happened in it.

    Args:
        prediction: What every device subtracted before encoding (`feedback`); added back to the mean.

    A bad packet is dropped and counted, never raised. With none good the weights stay as they are.
    """
    rules = admission or Admission()
    mean = aggregator(state.spec)
    dropped: Counter[str] = Counter()
    upload_bytes, losses = [], []
    for packet in packets:
        try:
            weight, loss = _admit(packet, state, codec, rules, mean)
        except WireError as error:
            dropped[error.reason] += 1
            continue
        upload_bytes.append(len(packet))
        losses.append((loss, weight))
    delta = mean.result()
    if delta is not None:
        delta = plus(delta, prediction)
    after = replace(state, round_num=state.round_num + 1) if delta is None else algorithm.apply(state, delta)
    report = RoundReport(
        *(
            state.round_num,
            len(upload_bytes),
            dict(dropped),
            mean.weight,
            tuple(upload_bytes),
            _mean_loss(losses),
            delta,
        )
    )
    return after, report


def _admit(packet: bytes, state: ServerState, codec: Codec, rules: Admission, mean: Aggregator) -> tuple[int, float]:
    header, delta = wire.unpack(packet, state.spec, codec)
    if header.kind != wire.UPDATE:
        raise WireError("kind", f"expected an update, got kind {header.kind}")
    if header.round_num != state.round_num or header.base_round != state.round_num:
        raise WireError("round", f"update is for round {header.round_num}, this is round {state.round_num}")
    if header.num_examples < 1:
        raise WireError("examples", "an update must stand on at least one example")
    if rules.clip_norm:
        delta = clip_by_norm(delta, rules.clip_norm)
    weight = min(header.num_examples, rules.max_examples) if rules.weighting == "examples" else 1
    mean.add(delta, weight)
    return weight, header.loss


def _mean_loss(losses: list[tuple[float, int]]) -> float:
    # fsum, because the order packets arrive in must not change the report either.
    told = [(loss, weight) for loss, weight in losses if math.isfinite(loss)]
    total = sum(weight for _, weight in told)
    return math.fsum(np.float64(loss) * weight for loss, weight in told) / total if total else math.nan
