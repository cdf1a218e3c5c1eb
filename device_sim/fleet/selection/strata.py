"""What a cohort can be stratified by: the device's class, the label it has most of, or how many examples it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device_sim.fleet.devices.fleet import Fleet
from device_sim.fleet.selection.walk import head
from fl_mobile.errors import ConfigError, check_known

Column = Callable[[np.ndarray], np.ndarray]
"""Devices ``int64[n]`` → a number of each, ``int64[n]``."""

_SAMPLE = 4096
_QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Holdings:
    """What devices hold.

    Attributes:
        majority_label: The class each has most examples of.
        examples: How many examples each has.
    """

    majority_label: Column
    examples: Column


@dataclass(frozen=True)
class Strata:
    """A division of the population.

    Attributes:
        of: Devices ``int64[n]`` → stratum ``int64[n]``; below 0 for one that belongs to none, and is never chosen.
        shares: Part of the population in each stratum, measured on 4,096 devices, or on all where there are fewer.
    """

    of: Column
    shares: tuple[float, ...]


def by_profile(fleet: Fleet, holdings: Holdings) -> Column:
    """Returns a stratum for each class of devices."""
    return lambda index: fleet.devices(index).profile


def by_label(fleet: Fleet, holdings: Holdings) -> Column:
    """Returns a stratum for each label that devices have most of."""
    return holdings.majority_label


def by_size(fleet: Fleet, holdings: Holdings) -> Column:
    """Returns four strata, from the quarter of the devices with the fewest examples to that with the most."""
    edges = np.quantile(holdings.examples(_sample(fleet)), _QUARTERS)
    return lambda index: np.searchsorted(edges, holdings.examples(index))


STRATA: dict[str, Callable[[Fleet, Holdings], Column]] = {"profile": by_profile, "label": by_label, "size": by_size}


def open_strata(name: str, fleet: Fleet, holdings: Holdings) -> Strata:
    """Returns the division of that name, with its shares.

    Raises:
        ConfigError: No such division.
    """
    check_known("selection.strata", name, STRATA)
    of = STRATA[name](fleet, holdings)
    strata = of(_sample(fleet))
    found = np.bincount(strata[strata >= 0])
    if not len(found):
        raise ConfigError(f"selection.strata '{name}': none of {len(strata)} devices belongs to any; all are empty")
    return Strata(of, tuple((found / found.sum()).tolist()))


def _sample(fleet: Fleet) -> np.ndarray:
    return head(fleet.seed, "strata", population=fleet.population, count=_SAMPLE)
