"""Who can and should at one moment: memory, availability and policy as the one question samplers ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.fleet.availability import Presence, Rules, battery_left, refusals
from device_sim.fleet.fleet import Fleet
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.policies import Moment, Policy
from device_sim.fleet.reasons import first_of
from device_sim.fleet.timing import fits_ram


@dataclass(frozen=True)
class Gate:
    """What a run asks of devices before they take part.

    Attributes:
        ram_bytes: Training needs; see `timing.Workload.ram_bytes`.
        ram_share: Part of its memory a phone gives to training.
    """

    fleet: Fleet
    presence: Presence
    rules: Rules
    policy: Policy
    ram_bytes: float
    ram_share: float

    def codes(self, ledger: Ledger, moment: Moment, index: np.ndarray) -> np.ndarray:
        """Returns ``uint8[n]``: why each device at ``index`` ``int64[n]`` does not take part, 0 if it does."""
        devices = self.fleet.devices(index)
        doing = self.presence(devices, moment.at_seconds)
        tight = first_of([("ram", ~fits_ram(self.ram_bytes, devices.ram_bytes, self.ram_share))], len(index))
        can = refusals(doing, devices, self.rules, battery_left(doing, devices, ledger))
        should = self.policy.before(ledger, moment, index)
        return np.where(tight, tight, np.where(can, can, should))
