"""Attackers that know every honest update of their round, and all send the one that does most harm unseen.

The simulator lets them: honest clients are trained first, then the attackers answer. Where an attacker is asked
together with nobody honest it has nobody to hide among, and does as it was asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np

from device_sim.attacks.base import Attack, Setting
from fl_mobile.parameters import NoParameters, check_parameters, parameter


@dataclass(frozen=True)
class LittleIsEnough:
    """[attack] of ALIE."""

    z: float = parameter(
        0.0, "distance from the mean in standard deviations; 0 is the paper's", at_least=0, at_most=1e3
    )

    def __post_init__(self) -> None:
        check_parameters(self, "attack")


@dataclass(frozen=True)
class Ipm:
    """[attack] of the inner-product manipulation."""

    strength: float = parameter(10.0, "times the honest mean, the other way", above=0, at_most=1e6)

    def __post_init__(self) -> None:
        check_parameters(self, "attack")


def alie(keys: LittleIsEnough, setting: Setting) -> Attack:
    """Returns the attack of Baruch et al., "A little is enough", NeurIPS 2019, algorithm 3: ``μ − z·σ``."""
    return Attack(collude=partial(little, z=keys.z))


def little(honest: np.ndarray, liars: int, z: float) -> np.ndarray:
    """Returns ``float64[d]``."""
    away: np.ndarray = honest.mean(axis=0) - (z or largest_z(len(honest), liars)) * honest.std(axis=0)
    return away


def largest_z(honest: int, liars: int) -> float:
    """Returns how far out the attackers can be and still have, with s = ⌊n/2 + 1⌋ − f honest clients farther out than
    they are, a majority on their side: ``Φ⁻¹((n − f − s)/(n − f))``.

    >>> round(largest_z(38, 12), 2)
    0.34
    """
    supporters = (honest + liars) // 2 + 1 - liars
    share = (honest - supporters) / honest
    return NormalDist().inv_cdf(min(max(share, 0.5), 1 - 1e-4))


def ipm(keys: Ipm, setting: Setting) -> Attack:
    """Returns the attack of Xie et al., "Fall of empires", UAI 2019."""
    return Attack(collude=partial(against, strength=keys.strength))


def against(honest: np.ndarray, liars: int, strength: float) -> np.ndarray:
    """Returns ``float64[d]``."""
    away: np.ndarray = -strength * honest.mean(axis=0)
    return away


def min_max(_: NoParameters, setting: Setting) -> Attack:
    """Returns the attack of Shejwalkar & Houmansadr, "Manipulating the Byzantine", NDSS 2021, section IV-C1, which
    needs not know the rule, along the negative standard deviation.
    """
    return Attack(collude=farthest_unseen)


def farthest_unseen(honest: np.ndarray, liars: int) -> np.ndarray:
    """Returns ``μ − γσ``, γ the largest at which no honest update is farther from it than two of them are apart."""
    mean, away = honest.mean(axis=0), -honest.std(axis=0)
    largest = max((float(((honest - one) ** 2).sum(axis=1).max()) for one in honest), default=0.0)
    # ‖μ + γa − xᵢ‖² is a parabola in γ for every i: the largest γ is the smallest of their larger roots.
    from_mean, square = mean - honest, float(away @ away)
    if square == 0:
        return mean
    half, rest = from_mean @ away / square, ((from_mean**2).sum(axis=1) - largest) / square
    gamma = min(-h + math.sqrt(max(0.0, h * h - r)) for h, r in zip(half, rest, strict=True))
    forged: np.ndarray = mean + max(0.0, gamma) * away
    return forged
