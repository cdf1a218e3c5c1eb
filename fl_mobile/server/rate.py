"""Rate control: the server moves the quantizer's step from round to round until packets have the size asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fl_mobile.codecs import Codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.errors import ConfigError

_EXPONENTS = {"stochastic": 1.5, "rdo": 0.7, "nearest": 0.7}
"""Rounding → power of the error that the step is changed by. On real updates packet bytes fall roughly as step^−0.6,
and as step^−1.3 where small values become zero for sure: a little less than the whole error is corrected at once."""

_OF_DRAW = 6.0
"""Divides that power where a packet's size follows from its client's examples: whom a round happened to ask says more
of its bytes than the step does. The error is corrected as a difference then: rounds whose bytes multiply and divide by
chance have a mean above what their logarithms come to."""

_LARGEST_CHANGE = 4.0


@dataclass(frozen=True)
class RateControl:
    """Aims at a mean upload packet of ``target_bytes``, where a codec of this ``rounding`` makes them.

    Attributes:
        target_bytes: Mean length of a round's packets.
        rounding: As `Ecsq.rounding`.
        by_examples: Whether clients with more examples take finer steps: `Ecsq.examples`.

    >>> RateControl(target_bytes=1000).next_step(8.0, packet_bytes=[1000, 1000])
    8.0
    """

    target_bytes: int
    rounding: str = "stochastic"
    by_examples: bool = False

    def __post_init__(self) -> None:
        if self.target_bytes < 64:
            raise ConfigError(
                f"an upload budget must be at least 64 bytes, what an empty packet takes; got {self.target_bytes}"
            )

    def next_step(self, step: float, packet_bytes: Sequence[int]) -> float:
        """Returns the step for the next round, given this round's packet lengths; unchanged without packets."""
        if not packet_bytes:
            return step
        mean = sum(packet_bytes) / len(packet_bytes)
        power, error = _EXPONENTS[self.rounding], mean / self.target_bytes
        change = 1 + (error - 1) * power / _OF_DRAW if self.by_examples else error**power
        return step * math.exp(min(max(math.log(change), -math.log(_LARGEST_CHANGE)), math.log(_LARGEST_CHANGE)))


def rate_control_of(codec: Codec, target_bytes: int) -> RateControl | None:
    """Returns what moves a codec's step from round to round; None for codecs without one, and where 0 is aimed at."""
    if not target_bytes or not isinstance(codec, Ecsq):
        return None
    return RateControl(target_bytes, codec.rounding, by_examples=codec.examples > 0)
