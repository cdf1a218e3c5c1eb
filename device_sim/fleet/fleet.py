"""A fleet of phones that costs nothing until one is asked: device d is a function of (seed, d)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from device_sim.fleet.draws import lognormals, rows_of
from device_sim.fleet.energy import RadioColumns, radio_joules
from device_sim.fleet.links import LINKS, Air, draw_air, transfer_seconds
from device_sim.fleet.profiles import PROFILES
from fl_mobile.errors import ConfigError, nearest

MIXED = "mixed"


@dataclass(frozen=True)
class Devices:
    """Some devices of a fleet as columns, one entry per device.

    Attributes:
        index: ``int64[n]``.
        profile: ``int64[n]``, a position in `PROFILE_NAMES`.
        link: ``int64[n]``, a position in `LINK_NAMES`.
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
        return draw_air(seed, round_num, self.index, self.jitter_sigma, self.loss)

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


PROFILE_NAMES = tuple(PROFILES)
LINK_NAMES = tuple(LINKS)


@dataclass(frozen=True)
class Fleet:
    """A population of virtual devices. Nothing in it grows with the population.

    Attributes:
        seed: Of the experiment.
        population: Devices are 0 to ``population`` − 1.
        profile: A name of `PROFILES`, or ``mixed`` for each in proportion to its share.
        link: A name of `LINKS`, or ``mixed``.
    """

    seed: int
    population: int
    profile: str = MIXED
    link: str = MIXED

    def __post_init__(self) -> None:
        for key, name, table in (("profile", self.profile, PROFILES), ("link", self.link, LINKS)):
            if name != MIXED and name not in table:
                raise ConfigError(f"unknown fleet.{key} '{name}'.{nearest(name, [*table, MIXED])}")
        if self.population < 1:
            raise ConfigError(f"a fleet needs at least one device, got a population of {self.population}")

    def devices(self, index: np.ndarray) -> Devices:
        """Returns columns of the devices at ``index`` ``int64[n]``, each the same whoever else is asked."""
        index = np.asarray(index, np.int64)
        profile = self._row(PROFILE_NAMES, self.profile, [p.share for p in PROFILES.values()], "profile", index)
        link = self._row(LINK_NAMES, self.link, [k.share for k in LINKS.values()], "link", index)
        speed = lognormals(_profiles("flops_sigma")[profile], self.seed, "speed", index=index)
        # One reception for both directions: who stands in a cellar downloads slowly as well.
        rate = lognormals(_links("rate_sigma")[link], self.seed, "rate", index=index)
        latency = lognormals(_links("latency_sigma")[link], self.seed, "latency", index=index)
        return Devices(
            index=index,
            profile=profile,
            link=link,
            train_flops_per_s=_profiles("train_flops_per_s")[profile] * speed,
            ram_bytes=_profiles("ram_bytes")[profile],
            battery_joules=_profiles("battery_joules")[profile],
            train_watts=_profiles("train_watts")[profile],
            idle_watts=_profiles("idle_watts")[profile],
            down_bps=_links("down_bps")[link] * rate,
            up_bps=_links("up_bps")[link] * rate,
            latency_s=_links("latency_s")[link] * latency,
            jitter_sigma=_links("jitter_sigma")[link],
            loss=_links("loss")[link],
            metered=_links("metered")[link],
        )

    def _row(self, names: tuple[str, ...], name: str, shares: list[float], key: str, index: np.ndarray) -> np.ndarray:
        if name != MIXED:
            return np.full(len(index), names.index(name), np.int64)
        return rows_of(np.array(shares), self.seed, key, index=index)


def open_fleet(seed: int, population: int, *, profile: str = MIXED, link: str = MIXED) -> Fleet:
    """Returns a fleet.

    Raises:
        ConfigError: No profile or link of that name, or no device.
    """
    return Fleet(seed, population, profile, link)


def _profiles(field: str) -> np.ndarray:
    return np.array([getattr(profile, field) for profile in PROFILES.values()])


def _links(field: str) -> np.ndarray:
    return np.array([getattr(link, field) for link in LINKS.values()])
