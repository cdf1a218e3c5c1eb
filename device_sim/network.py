"""The air between phone and server: seconds from the packet's real length, and whether it arrives.

Virtual time only. A device keeps its link for the whole run, drawn from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import ConfigError, nearest
from fl_mobile.seeds import rng_for


@dataclass(frozen=True)
class Link:
    """One kind of connection.

    Attributes:
        down_bps: Median download rate, bits a second.
        up_bps: Median upload rate, bits a second.
        latency_s: Set-up and round-trip time of one transfer, seconds.
        loss: Probability that a transfer breaks off and is given up.
    """

    down_bps: float
    up_bps: float
    latency_s: float
    loss: float

    def down_seconds(self, packet_bytes: int) -> float:
        """Seconds on air for a download."""
        return self.latency_s + 8 * packet_bytes / self.down_bps

    def up_seconds(self, packet_bytes: int) -> float:
        """Seconds on air for an upload."""
        return self.latency_s + 8 * packet_bytes / self.up_bps


LINKS: dict[str, Link] = {
    "ideal": Link(float("inf"), float("inf"), 0.0, 0.0),
    "wifi": Link(60e6, 20e6, 0.05, 0.005),
    "5g": Link(90e6, 15e6, 0.06, 0.01),
    "4g": Link(25e6, 8e6, 0.09, 0.02),
    "3g": Link(3e6, 1e6, 0.25, 0.05),
}
"""Round numbers for a simulation, not a measurement of any operator; ``ideal`` takes no time and loses nothing."""

MIX: dict[str, float] = {"wifi": 0.6, "5g": 0.15, "4g": 0.2, "3g": 0.05}
"""Share of each link in ``mixed``."""


def link_of(name: str, seed: int, device: int) -> Link:
    """Returns the link of one device.

    Raises:
        ConfigError: No link of that name.
    """
    if name == "mixed":
        return LINKS[str(rng_for(seed, device, "link").choice(list(MIX), p=list(MIX.values())))]
    if name not in LINKS:
        raise ConfigError(f"unknown fleet.link '{name}'.{nearest(name, [*LINKS, 'mixed'])}")
    return LINKS[name]


def arrives(link: Link, rng: np.random.Generator) -> bool:
    """Returns whether one transfer gets through."""
    return bool(rng.random() >= link.loss)
