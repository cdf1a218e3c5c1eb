"""Whether phones should: update policies, decided on a chosen phone before it downloads and before it uploads.

One that declines is not replaced; what it would have cost is saved (`reasons.saved_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from device_sim.fleet.draws import lognormals
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import first_of
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.seeds import uniforms


@dataclass(frozen=True)
class PolicyPlan:
    """The options of update policies; 0 is off.

    Attributes:
        min_separation_seconds: Least virtual time between two participations of one device, under any policy.
        period_seconds: periodic: a device takes part once in each of its own windows of this length.
        min_new_examples: event: examples that must have come in since a device's last participation.
        examples_per_hour: event: median rate at which they come in; every device has its own, sigma 1 in the logarithm.
        min_update_norm: event: least L2 norm of an update worth sending.
        min_loss_drift: event: least relative change of the local loss, since the device's last participation.
    """

    min_separation_seconds: float = 0.0
    period_seconds: float = 86_400.0
    min_new_examples: int = 50
    examples_per_hour: float = 10.0
    min_update_norm: float = 0.0
    min_loss_drift: float = 0.0

    def __post_init__(self) -> None:
        if not self.period_seconds > 0:
            raise ConfigError(f"policy.period-seconds must be above 0, got {self.period_seconds}")
        for field in fields(self):
            if not (value := getattr(self, field.name)) >= 0:
                raise ConfigError(f"policy.{field.name.replace('_', '-')} must be ≥ 0, got {value}")


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


def every_round(plan: PolicyPlan, seed: int) -> Policy:
    """Returns the policy of devices that always take part."""
    return Policy(_takes_part, _sends)


def periodic(plan: PolicyPlan, seed: int) -> Policy:
    """Returns the policy of devices that take part once in each window of their own clock, as a nightly job does."""

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        phase = uniforms(seed, "period", index=index)
        now = np.floor(at_seconds / plan.period_seconds + phase)
        then = np.floor(ledger.column("last_seconds", index) / plan.period_seconds + phase)
        return first_of([("period", then >= now)], len(index))

    return Policy(before, _sends)


def event(plan: PolicyPlan, seed: int) -> Policy:
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


POLICIES: dict[str, Callable[[PolicyPlan, int], Policy]] = {
    "every-round": every_round,
    "periodic": periodic,
    "event": event,
}


def open_policy(name: str, plan: PolicyPlan, seed: int) -> Policy:
    """Returns the policy of that name, with the minimum separation that ``plan`` asks of all.

    Raises:
        ConfigError: No policy of that name.
    """
    check_known("policy.name", name, POLICIES)
    policy = POLICIES[name](plan, seed)

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        since = at_seconds - ledger.column("last_seconds", index)
        codes = policy.before(ledger, at_seconds, index)
        too_soon = first_of([("min-separation", since < plan.min_separation_seconds)], len(index))
        return np.where(codes, codes, too_soon)

    return Policy(before, policy.after)
