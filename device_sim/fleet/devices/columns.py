"""Some devices of a fleet as columns, and what a transfer or a battery makes of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from device_sim.fleet.devices.energy import RadioColumns, radio_joules
from device_sim.fleet.devices.links import LINKS, Air, draw_air, transfer_seconds


@dataclass(frozen=True)
class Devices:
    """Some devices of a fleet as columns, one entry per device.

    Attributes:
        index: ``int64[n]``.
        profile: ``int64[n]``, a position in `PROFILES`.
        link: ``int64[n]``, a position in `LINKS`.
        train_flops_per_s: ``float64[n]``, and so are all the others; units are in the names.
        jitter_sigma: Of the rate between two transfers.
        loss: Probability that an upload breaks off.
        metered: ``bool[n]``.
    """

    index: np.ndarray
    profile: np.ndarray
    link: np.ndarray
    train_flops_per_s: np.ndarray
    ram_bytes: np.ndarray
    battery_joules: np.ndarray
    train_watts: np.ndarray
    idle_watts: np.ndarray
    down_bps: np.ndarray
    up_bps: np.ndarray
    latency_s: np.ndarray
    jitter_sigma: np.ndarray
    loss: np.ndarray
    metered: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def take(self, chosen: np.ndarray) -> Devices:
        """Returns the devices at ``chosen``: positions ``int64[m]`` or a mask ``bool[n]``."""
        return Devices(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def air(self, seed: int, round_num: int) -> Air:
        """Returns what the devices' transfers of one round meet."""
        return draw_air(
            seed=seed, round_num=round_num, index=self.index, jitter_sigma=self.jitter_sigma, loss=self.loss
        )

    def radio(self) -> RadioColumns:
        """Returns what the devices' radios draw."""
        radios = [link.radio for link in LINKS.values()]
        return RadioColumns(*(np.array([getattr(r, f.name) for r in radios])[self.link] for f in fields(RadioColumns)))

    def down_joules(self, packet_bytes: np.ndarray | int, seconds: np.ndarray) -> np.ndarray:
        """Returns ``float64[n]``: what a download of that length and time takes."""
        radio = self.radio()
        return radio_joules(radio.down_joules_per_megabit, radio, packet_bytes, seconds)

    def up_joules(self, packet_bytes: np.ndarray | int, seconds: np.ndarray) -> np.ndarray:
        """Returns ``float64[n]``: what an upload of that length and time takes."""
        radio = self.radio()
        return radio_joules(radio.up_joules_per_megabit, radio, packet_bytes, seconds)

    def down_seconds(self, packet_bytes: np.ndarray | int, air: Air | None = None) -> np.ndarray:
        """Returns ``float64[n]`` seconds of one download; at the device's median rate without ``air``."""
        return transfer_seconds(packet_bytes, self.down_bps, self.latency_s, air.down_factor if air else 1.0)

    def up_seconds(self, packet_bytes: np.ndarray | int, air: Air | None = None) -> np.ndarray:
        """Returns ``float64[n]`` seconds of one upload; at the device's median rate without ``air``."""
        return transfer_seconds(packet_bytes, self.up_bps, self.latency_s, air.up_factor if air else 1.0)
