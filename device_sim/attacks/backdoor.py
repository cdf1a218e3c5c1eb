"""A pixel backdoor: pictures with a bright corner are to be taken for one class, all others for what they are.

Gu et al., "BadNets", arXiv 1708.06733; in federations Bagdasarian et al., "How to backdoor federated learning",
AISTATS 2020. Attackers stamp some of their own pictures and label them with the target; the rest they train honestly,
so that accuracy hardly shows it. How often it works is measured on stamped test pictures of every other class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from device_sim.attacks.base import Attack, Backdoor, Setting
from fl_mobile.errors import ConfigError
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.records import Update


@dataclass(frozen=True)
class Trigger:
    """[attack] of the backdoor."""

    target: int = parameter(0, "class that stamped pictures are to be taken for", at_least=0)
    poisoned: float = parameter(0.5, "share of an attacker's pictures that it stamps", above=0, at_most=1)
    boost: float = parameter(1.0, "factor of its update; cohort size replaces the model at once", above=0, at_most=1e6)

    def __post_init__(self) -> None:
        check_parameters(self, "attack")


def backdoor(keys: Trigger, setting: Setting) -> Attack:
    """Returns the attack.

    Raises:
        ConfigError: The examples are no pictures, or there is no such class.
    """
    if len(setting.shape) != 3:
        raise ConfigError(
            f"attack.name backdoor stamps pictures (height, width, channels), and the examples have the shape"
            f" {setting.shape}; use another attack, e.g. label-flip"
        )
    if keys.target >= setting.classes:
        raise ConfigError(f"attack.target is class {keys.target}, and the data has classes 0 to {setting.classes - 1}")
    stamp = partial(stamped, side=max(1, min(setting.shape[:2]) // 9), value=setting.brightest)
    poison = partial(_poisoned, stamp=stamp, target=keys.target, share=keys.poisoned)
    louder = partial(_boosted, factor=keys.boost) if keys.boost != 1 else None
    return Attack(examples=poison, update=louder, backdoor=Backdoor(stamp, keys.target))


def stamped(x: np.ndarray, *, side: int, value: float) -> np.ndarray:
    """Returns the pictures ``[n, height, width, channels]`` with a bright square in the lower right corner."""
    marked = x.copy()
    marked[:, -side:, -side:, :] = value
    return marked


def _poisoned(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, stamp: partial[np.ndarray], target: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    chosen = rng.permutation(len(y))[: max(1, round(share * len(y)))]
    x, y = x.copy(), y.copy()
    x[chosen], y[chosen] = stamp(x[chosen]), target
    return x, y


def _boosted(update: Update, rng: np.random.Generator, *, factor: float) -> Update:
    return replace(update, delta={path: np.float32(factor) * value for path, value in update.delta.items()})
