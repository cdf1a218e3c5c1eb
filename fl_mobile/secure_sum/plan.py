"""How the masked sums of a run are cut: into groups of bounded size, each with terms that all of its clients sign."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fl_mobile.errors import ConfigError
from fl_mobile.secure_sum.terms import LEAST_GROUP, SumTerms, neighbours_for

MOST_IN_A_GROUP = 4096
"""Clients check the signature of everybody in their group; Bonawitz et al. 2019 add groups of hundreds."""


@dataclass(frozen=True)
class MaskPlan:
    """Uploads are added under masks; the server reads the sum of a group, and no single update.

    Attributes:
        group: Most clients in one sum. A larger cohort is cut into groups of about the same size.
        dropouts: Share of a group that may leave in the middle of its sum. Where more leave, nobody learns anything of
            it: clients refuse to unmask a sum of fewer.
    """

    group: int
    dropouts: float

    def __post_init__(self) -> None:
        if not LEAST_GROUP <= self.group <= MOST_IN_A_GROUP:
            raise ConfigError(
                f"masks.group must be from {LEAST_GROUP} to {MOST_IN_A_GROUP}, or 0 for no masks, got {self.group}:"
                " in a sum of two each client can read the other's update"
            )
        if not 0 <= self.dropouts < 0.5:
            raise ConfigError(
                f"masks.dropouts must be at least 0 and below 0.5, got {self.dropouts:g}: shares of more than half of"
                " the neighbours unmask a client"
            )

    def groups(self, clients: Sequence[int]) -> list[list[int]]:
        """Returns the clients cut into groups whose sizes differ by one at most, in their order.

        >>> [len(group) for group in MaskPlan(group=100, dropouts=0.1).groups(range(250))]
        [84, 83, 83]
        """
        count = max(1, -(-len(clients) // self.group))
        return [list(clients[at::count]) for at in range(count)]

    def least(self, clients: int) -> int:
        """Returns how many of so many must be in a sum for it to be unmasked."""
        return max(LEAST_GROUP, math.ceil((1 - self.dropouts) * clients - 1e-9))

    def terms(self, *, run: bytes, round_num: int, group: int, clients: int, values: int, width: int) -> SumTerms:
        """Returns the terms of one group's sum."""
        neighbours, threshold = neighbours_for(clients, self.dropouts)
        return SumTerms(
            run=run,
            round_num=round_num,
            group=group,
            values=values,
            width=width,
            neighbours=neighbours,
            threshold=threshold,
            least=self.least(clients),
        )


def run_of(name: str, fingerprint: int, codec: str) -> bytes:
    """Returns 16 bytes that name what is added: a federation, its model, and the codec that a round published.

    Clients of another model, or of another step of the codec, sign other terms, and cannot be in the same sum.
    """
    return hashlib.sha256(f"masked sum of {name}/{fingerprint:016x}/{codec}".encode()).digest()[:16]
