"""Attackers that need nobody else: wrong labels, updates turned round or made of noise, a false claim of examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from device_sim.attacks.base import Attack, Setting
from fl_mobile.parameters import NoParameters, check_parameters, parameter
from fl_mobile.records import Update
from fl_mobile.tensors import global_norm

CLAIM = 2**30
"""Examples that a count-liar says it has."""


@dataclass(frozen=True)
class Scale:
    """[attack] of those that send something long."""

    scale: float = parameter(10.0, "length of what is sent, in lengths of the honest update", above=0, at_most=1e6)

    def __post_init__(self) -> None:
        check_parameters(self, "attack")


def label_flip(_: NoParameters, setting: Setting) -> Attack:
    """Returns the attack of Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning",
    USENIX Security 2020, section 6: class c is trained as class ``classes − 1 − c``.
    """
    return Attack(examples=partial(_flipped, last=setting.classes - 1))


def _flipped(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, last: int) -> tuple[np.ndarray, np.ndarray]:
    return x, last - y


def sign_flip(keys: Scale, setting: Setting) -> Attack:
    """Returns the attack of Li et al., "RSA", AAAI 2019, with a factor."""
    return Attack(update=partial(_turned, scale=keys.scale))


def _turned(update: Update, rng: np.random.Generator, *, scale: float) -> Update:
    factor = np.float32(-scale)
    return replace(update, delta={path: factor * value for path, value in update.delta.items()})


def gaussian(keys: Scale, setting: Setting) -> Attack:
    """Returns the attack of Blanchard et al. 2017, section 6, its length in those of the attacker's own update."""
    return Attack(update=partial(_noise, scale=keys.scale))


def _noise(update: Update, rng: np.random.Generator, *, scale: float) -> Update:
    size = max(1, sum(value.size for value in update.delta.values()))
    spread = scale * global_norm(update.delta) / np.sqrt(size)
    noise = {path: rng.normal(0, spread, value.shape).astype(np.float32) for path, value in update.delta.items()}
    return replace(update, delta=noise)


def count_liar(_: NoParameters, setting: Setting) -> Attack:
    """Returns the attack of who wants to be the whole average: wrong labels, under a claim of 2³⁰ examples."""
    return Attack(examples=partial(_flipped, last=setting.classes - 1), update=_claiming)


def _claiming(update: Update, rng: np.random.Generator) -> Update:
    return replace(update, num_examples=CLAIM)
