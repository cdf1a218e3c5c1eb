"""Whether devices should: update policies, decided on a chosen device before it downloads and before it uploads.

One that declines is not replaced; what it would have cost is saved (`reasons.saved_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_sim.fleet.draws import lognormals
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import first_of
from fl_mobile.errors import check_known
from fl_mobile.parameters import NoParameters, check_parameters, parameter
from fl_mobile.seeds import uniforms
from fl_mobile.table import Table


@dataclass(frozen=True)
class Windows:
    """[policy] of periodic participation."""

    period_seconds: float = parameter(86_400.0, "once in each window of this length", above=0)

    def __post_init__(self) -> None:
        check_parameters(self, "policy")


@dataclass(frozen=True)
class News:
    """[policy] of participation when something is new."""

    min_new_examples: int = parameter(50, "examples that must have come in since the last time; 0 is off", at_least=0)
    examples_per_hour: float = parameter(
        10.0, "median rate at which they come in; every device has its own, sigma 1 in the logarithm", at_least=0
    )
    min_update_norm: float = parameter(0.0, "least L2 norm of an update worth sending; 0 is off", at_least=0)
    min_loss_drift: float = parameter(0.0, "least relative change of the local loss; 0 is off", at_least=0)

    def __post_init__(self) -> None:
        check_parameters(self, "policy")


@dataclass(frozen=True)
class Trained:
    """What devices know after training: ``int64[n]`` indices, L2 norms of their updates and local losses."""

    index: np.ndarray
    update_norm: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Policy:
    """One update policy.

    Attributes:
        before: Reason codes ``uint8[n]`` before downloading, at a virtual time in seconds, for devices ``int64[n]``.
        after: Reason codes ``uint8[n]`` before uploading. Call it before the ledger learns of this participation.
    """

    before: Callable[[Ledger, float, np.ndarray], np.ndarray]
    after: Callable[[Ledger, Trained], np.ndarray]


def _takes_part(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
    return np.zeros(len(index), np.uint8)


def _sends(ledger: Ledger, trained: Trained) -> np.ndarray:
    return np.zeros(len(trained.index), np.uint8)


def every_round(plan: NoParameters, seed: int) -> Policy:
    """Returns the policy of devices that always take part."""
    return Policy(_takes_part, _sends)


def periodic(plan: Windows, seed: int) -> Policy:
    """Returns the policy of devices that take part once in each window of their own clock, as a nightly job does."""

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        phase = uniforms(seed, "period", index=index)
        now = np.floor(at_seconds / plan.period_seconds + phase)
        then = np.floor(ledger.column("last_seconds", index) / plan.period_seconds + phase)
        return first_of([("period", then >= now)], len(index))

    return Policy(before, _sends)


def event(plan: News, seed: int) -> Policy:
    """Returns the policy of devices that take part when something is new; a device's first time always is."""

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        hours = (at_seconds - ledger.column("last_seconds", index)) / 3600
        arrived = np.floor(hours * plan.examples_per_hour * lognormals(1.0, seed, "arrivals", index=index))
        return first_of([("few-new-examples", arrived < plan.min_new_examples)], len(index))

    def after(ledger: Ledger, trained: Trained) -> np.ndarray:
        known = ledger.column("loss", trained.index)
        drift = np.abs(trained.loss - known) / np.maximum(np.abs(known), np.finfo(float).tiny)
        return first_of(
            [
                ("small-update", trained.update_norm < plan.min_update_norm),
                ("small-drift", drift < plan.min_loss_drift),
            ],
            len(trained.index),
        )

    return Policy(before, after)


@dataclass(frozen=True)
class PolicyRow:
    """One row of `POLICIES`.

    Attributes:
        open: Its parameters and the seed → the policy.
        parameters: The record of its parameters: keys of [policy].
    """

    open: Callable[[Any, int], Policy]
    parameters: type = NoParameters


POLICIES: Table[PolicyRow] = Table(
    "policy",
    PolicyRow,
    {
        "every-round": PolicyRow(every_round),
        "periodic": PolicyRow(periodic, Windows),
        "event": PolicyRow(event, News),
    },
)
"""``policy.name`` → update policy."""


def open_policy(name: str, seed: int, plan: Any = None, *, min_separation_seconds: float = 0.0) -> Policy:
    """Returns the policy of that name.

    Args:
        plan: A record of the row's parameters; None takes its defaults.
        min_separation_seconds: Least virtual time between two participations of a device, under any policy.

    Raises:
        ConfigError: No policy of that name.
    """
    check_known("policy.name", name, POLICIES)
    row = POLICIES[name]
    policy = row.open(row.parameters() if plan is None else plan, seed)

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        since = at_seconds - ledger.column("last_seconds", index)
        codes = policy.before(ledger, at_seconds, index)
        too_soon = first_of([("min-separation", since < min_separation_seconds)], len(index))
        return np.where(codes, codes, too_soon)

    return Policy(before, policy.after)
