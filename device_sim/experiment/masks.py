"""[masks]: how uploads are added so that the server reads their sum alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_sim.experiment.keys import key
from fl_mobile.errors import ConfigError
from fl_mobile.secure_sum.plan import MaskPlan

SUMLESS_ROUNDS = 3
"""So many rounds in a row without a sum end a run: whoever is asked next would leave as well."""


@dataclass(frozen=True)
class Masks:
    """[masks]: secure aggregation. The server adds uploads that it cannot read; every device counts once."""

    group: int = key(
        0, "most devices in one masked sum; a larger cohort is several; 0: the server reads single updates"
    )
    dropouts: float = key(0.3, "share of a group that may leave in the middle; a sum of fewer is read by nobody")

    def __post_init__(self) -> None:
        if self.group < 0:
            raise ConfigError(f"masks.group must be 0, for no masks, or from 3, got {self.group}")
        if self.on:
            self.plan(self.group)

    @property
    def on(self) -> bool:
        """Whether uploads are added under masks."""
        return self.group > 0

    def plan(self, most: int) -> MaskPlan:
        """Returns how cohorts of at most ``most`` devices are cut; fields are as wide as the largest group needs."""
        return MaskPlan(min(self.group, max(most, 3)), self.dropouts)


def most_in_cohort(cohort: int, sampler: str) -> int:
    """Returns how many devices are asked at once; of a binomial number what it stays below but once in a billion.

    A cohort that is larger all the same is cut into more groups.
    """
    return cohort + math.ceil(6 * math.sqrt(cohort)) if sampler == "poisson" else cohort
