"""Which devices can take part at one moment: memory and availability as the one question samplers ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.fleet.availability.presence import Presence, Rules, battery_left, refusals
from device_sim.fleet.devices.fleet import Fleet
from device_sim.fleet.devices.timing import fits_ram
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import first_of


@dataclass(frozen=True)
class Gate:
    """What a run asks of devices before it chooses among them.

    Attributes:
        ram_bytes: Training needs; see `timing.Workload.ram_bytes`.
        ram_share: Part of its memory a device gives to training.
    """

    fleet: Fleet
    presence: Presence
    rules: Rules
    ram_bytes: float
    ram_share: float

    def refusals(self, ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        """Returns ``uint8[n]``: why each device at ``index`` ``int64[n]`` cannot take part, 0 if it can."""
        devices = self.fleet.devices(index)
        doing = self.presence(devices, at_seconds)
        tight = first_of([("ram", ~fits_ram(self.ram_bytes, devices.ram_bytes, self.ram_share))], len(index))
        return np.where(tight, tight, refusals(doing, devices, self.rules, battery_left(doing, devices, ledger)))
