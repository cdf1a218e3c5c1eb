"""What the server needs to know to release a private sum; what it then claims about it is a `Claim`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial

from fl_mobile.aggregation.base import AggregationRow
from fl_mobile.errors import ConfigError
from fl_mobile.privacy.clipped_sum import UNIT, ClippedSum
from fl_mobile.privacy.gaussian import LARGEST_SIGMA
from fl_mobile.privacy.keys import KEY_BYTES, derive
from fl_mobile.records import PrivacyState

LEAST_MULTIPLIER = 0.3
"""Below, ε says nothing, and computing it needs more memory than a machine has."""

CLIP_NORMS = (1e-8, 1e8)
"""An adaptive norm stays in here."""

MOST_COUNT_NOISE = 1e6


@dataclass(frozen=True)
class PrivacyRules:
    """Central differential privacy of whole clients.

    Attributes:
        clip_norm: L2 norm of one client's update; the first one where it adapts.
        noise_multiplier: z: noise of a round over what one client can change, all that is released counted.
        cohort: The public expected number of clients the sum is divided by, whoever came.
        quantile: The norm follows this quantile of the clients' norms; 0 keeps it (Andrew et al., NeurIPS 2021).
        clip_rate: η in ``C ← C·exp(−η·(share within − quantile))``.
        count_noise: σ_b, standard deviation of the noise on the number of clients within the norm.
        first_key: 32 secret bytes that all noise follows from; empty draws them from the operating system.
    """

    clip_norm: float
    noise_multiplier: float
    cohort: int
    quantile: float = 0.0
    clip_rate: float = 0.2
    count_noise: float = 0.0
    first_key: bytes = b""

    def __post_init__(self) -> None:
        if not CLIP_NORMS[0] <= self.clip_norm <= CLIP_NORMS[1]:
            raise ConfigError(f"privacy.clip-norm must be from 1e-8 to 1e8, got {self.clip_norm}")
        if not LEAST_MULTIPLIER <= self.noise_multiplier <= LARGEST_SIGMA / UNIT / 4:
            raise ConfigError(
                f"privacy.noise-multiplier must be from {LEAST_MULTIPLIER} to {LARGEST_SIGMA / UNIT / 4:g}, got"
                f" {self.noise_multiplier}: with less noise no ε worth a name can be claimed"
            )
        if self.cohort < 2:
            raise ConfigError(f"a private sum needs an expected cohort of at least 2 clients, got {self.cohort}")
        if not 0 <= self.quantile < 1 or not 0 < self.clip_rate <= 1:
            raise ConfigError(
                f"privacy.clip-quantile must be in [0, 1) and clip-rate in (0, 1], got {self.quantile} and"
                f" {self.clip_rate}"
            )
        if self.quantile and not 2 * self.count_noise > self.noise_multiplier:
            raise ConfigError(
                f"privacy.count-noise must be above half of the noise multiplier, {self.noise_multiplier / 2:g}, got"
                f" {self.count_noise}: the count alone would cost more than the whole round may"
            )
        if self.sigma > LARGEST_SIGMA or not 0 <= self.count_noise <= MOST_COUNT_NOISE:
            raise ConfigError(
                f"privacy.count-noise must be at most {MOST_COUNT_NOISE:g}, and further from half of the noise"
                f" multiplier than {self.count_noise:g}, which leaves noise {self.value_multiplier:g} for the update"
            )
        if len(self.first_key) not in (0, KEY_BYTES):
            raise ConfigError(f"the key of the noise has {KEY_BYTES} bytes, got {len(self.first_key)}")

    @property
    def value_multiplier(self) -> float:
        """Noise on the sum over the clipping norm: more than z where the count takes a part of the budget.

        ``z⁻² = z_Δ⁻² + (2σ_b)⁻²``: a client changes the count, which is taken about its middle, by ½.
        """
        if not self.quantile:
            return self.noise_multiplier
        return (self.noise_multiplier**-2 - (2 * self.count_noise) ** -2) ** -0.5

    @property
    def sigma(self) -> int:
        """Parameter of the noise on the sum, in steps of the grid; rounded up."""
        return math.ceil(self.value_multiplier * UNIT * (1 + 2.0**-40))

    def start(self) -> PrivacyState:
        """Returns what the server remembers before round 0."""
        return PrivacyState(self.clip_norm, self.first_key or os.urandom(KEY_BYTES))

    def rule(self, clip_norm: float) -> AggregationRow:
        """Returns how updates of a round with this clipping norm become one; only `release` can read the sum."""
        make = partial(ClippedSum, clip_norm=clip_norm)
        return AggregationRow(make, "clipped, unweighted, exact sum", mean=False, subtractable=True)


def cohort_seed(state: PrivacyState) -> int:
    """Returns the seed that draws this round's cohort: who takes part must be as secret as the noise.

    Amplification by sampling is a claim about somebody who does not know who was sampled.
    """
    return int.from_bytes(derive(state.key, "cohort")[:7], "big")


def key_of_seed(seed: int) -> bytes:
    """Returns the key of a simulation that anybody can repeat, and that therefore protects nobody."""
    return derive(seed.to_bytes(8, "big", signed=True), "reproducible")
