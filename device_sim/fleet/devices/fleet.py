"""A fleet of devices that costs nothing until one is asked: device d is a function of (seed, d)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from device_sim.fleet.devices.columns import Devices
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.devices.traces import DeviceRows, read_devices, row_of
from device_sim.fleet.draws import lognormals, rows_of
from fl_mobile.errors import ConfigError, check_known

MIXED = "mixed"


@dataclass(frozen=True)
class Fleet:
    """A population of virtual devices. Nothing in it grows with the population.

    Attributes:
        seed: Of the experiment.
        population: Devices are 0 to ``population`` − 1.
        profile: A name of `PROFILES`, or ``mixed`` for each in proportion to its share.
        link: A name of `LINKS`, or ``mixed``.
        rows: Devices read from a file; what it leaves open is drawn.
    """

    seed: int
    population: int
    profile: str = MIXED
    link: str = MIXED
    rows: DeviceRows | None = None

    def __post_init__(self) -> None:
        for key, name, table in (("profile", self.profile, PROFILES), ("link", self.link, LINKS)):
            check_known(f"fleet.{key}", name, [*table, MIXED])
        if self.population < 1:
            raise ConfigError(f"a fleet needs at least one device, got a population of {self.population}")

    def devices(self, index: np.ndarray) -> Devices:
        """Returns columns of the devices at ``index`` ``int64[n]``, each the same whoever else is asked."""
        index = np.asarray(index, np.int64)
        row = row_of(self.seed, self.population, len(self.rows), index) if self.rows else None
        profile = self._profile(index, row)
        link = self._link(index, row)
        speed = lognormals(_profiles("flops_sigma")[profile], self.seed, "speed", index=index)
        # One reception for both directions: who stands in a cellar downloads slowly as well.
        rate = lognormals(_links("rate_sigma")[link], self.seed, "rate", index=index)
        latency = lognormals(_links("latency_sigma")[link], self.seed, "latency", index=index)
        drawn = Devices(
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
        return self._as_in_file(drawn, row)

    def _profile(self, index: np.ndarray, row: np.ndarray | None) -> np.ndarray:
        drawn = _position(
            names=tuple(PROFILES),
            name=self.profile,
            shares=_profiles("share"),
            seed=self.seed,
            key="profile",
            index=index,
        )
        given = self.rows.profile[row] if self.rows else -1
        return np.where(given >= 0, given, drawn)

    def _link(self, index: np.ndarray, row: np.ndarray | None) -> np.ndarray:
        drawn = _position(
            names=tuple(LINKS), name=self.link, shares=_links("share"), seed=self.seed, key="link", index=index
        )
        given = self.rows.link[row] if self.rows else -1
        return np.where(given >= 0, given, drawn)

    def _as_in_file(self, drawn: Devices, row: np.ndarray | None) -> Devices:
        """Returns the devices with the numbers that the file has for them."""
        if not self.rows:
            return drawn
        given = {name: column[row] for name, column in self.rows.numbers.items()}
        return replace(drawn, **{name: np.where(np.isnan(v), getattr(drawn, name), v) for name, v in given.items()})


def open_fleet(
    seed: int, population: int, *, profile: str = MIXED, link: str = MIXED, devices_file: str | Path = ""
) -> Fleet:
    """Returns a fleet.

    Args:
        devices_file: See `traces.read_devices`; empty draws everything.

    Raises:
        ConfigError: No profile or link of that name, or no device.
        DataError: The file is missing or malformed.
    """
    return Fleet(
        seed=seed,
        population=population,
        profile=profile,
        link=link,
        rows=read_devices(devices_file) if devices_file else None,
    )


def _position(
    names: tuple[str, ...], name: str, shares: np.ndarray, seed: int, key: str, index: np.ndarray
) -> np.ndarray:
    if name != MIXED:
        return np.full(len(index), names.index(name), np.int64)
    return rows_of(shares, seed, key, index=index)


def _profiles(field: str) -> np.ndarray:
    return np.array([getattr(profile, field) for profile in PROFILES.values()])


def _links(field: str) -> np.ndarray:
    return np.array([getattr(link, field) for link in LINKS.values()])
