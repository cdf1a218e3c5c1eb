"""The section of an experiment about clients that lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from device_sim.attacks import ATTACKS, NONE
from device_sim.experiment.keys import chosen, fill_chosen, key
from fl_mobile.errors import ConfigError


@dataclass(frozen=True)
class AttackPlan:
    """[attack]: what malicious devices do; see docs/robustness.md."""

    name: str = key(NONE, " | ".join(ATTACKS))
    of_attack: Any = chosen("name", ATTACKS)
    share: float = key(0.2, "of all devices that are malicious, drawn from the seed; the nearest whole number of them")

    def __post_init__(self) -> None:
        fill_chosen(self, "attack")
        if not 0 < self.share < 1:
            raise ConfigError(f"attack.share must be above 0 and below 1, got {self.share}; attack.name none is nobody")
