"""What an attack is: the places in a client's round where it does something else than it was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.parameters import NoParameters
from fl_mobile.records import Update

Poison = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """What an attacker knows of the data.

    Attributes:
        classes: Their number.
        shape: Of one example.
        brightest: Value of a white pixel.
    """

    classes: int
    shape: tuple[int, ...]
    brightest: float


@dataclass(frozen=True)
class Backdoor:
    """What the attackers want the model to learn beside its task.

    Attributes:
        stamp: Examples → the same with the trigger on them.
        target: The class they are to be taken for.
    """

    stamp: Callable[[np.ndarray], np.ndarray]
    target: int


@dataclass(frozen=True)
class Attack:
    """What a malicious client does; where it says None, that is what it was asked. Picklable, for worker processes.

    Attributes:
        examples: (its examples, their labels, rng) → what it trains on; as many.
        update: (what it trained, rng) → what it says it did.
        collude: (``float64[n, d]`` of the round's n honest updates, number of attackers) → ``float64[d]``, which
            they all send: an attacker that knows everything.
        packet: (the packet, rng) → the bytes it sends.
        backdoor: What is measured beside accuracy.
    """

    examples: Poison | None = None
    update: Callable[[Update, np.random.Generator], Update] | None = None
    collude: Callable[[np.ndarray, int], np.ndarray] | None = None
    packet: Callable[[bytes, np.random.Generator], bytes] | None = None
    backdoor: Backdoor | None = None


@dataclass(frozen=True)
class AttackRow:
    """One row of `ATTACKS`.

    Attributes:
        make: (the row's parameters, the setting) → the attack; raises `ConfigError` where it cannot be.
        summary: A line of help.
        parameters: The record of its parameters: keys of [attack].
    """

    make: Callable[[Any, Setting], Attack]
    summary: str
    parameters: type = NoParameters


def honest(_: NoParameters, setting: Setting) -> Attack:
    """Returns what honest clients do."""
    return Attack()
