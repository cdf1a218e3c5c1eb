"""A lower bound on the ε of one round, from one play of it: canaries that only noise can hide.

Andrew et al., "One-shot empirical privacy estimation for federated learning", ICLR 2024. A canary is a client whose
update is a random direction, as long as an update may be. Random directions in many dimensions are all but orthogonal,
so every canary measures for itself how well the released model tells that it was there:

```
k canaries sent ─ answer ─ packet ─ server.fold ─ server.step ─▶ released step ─▶ its part along each canary: N(μ, σ²)
k canaries not sent ───────────────────────────────────────────────────────────▶ its part along each:        N(0, σ²)
```
The worst case for a client: everybody else is known, and the canary is as loud as it may be. What k canaries do to one
another adds to σ, which makes the bound lower and never higher; it stays a bound at its confidence only as far as the
parts are Gaussian, which sums of noise along random directions are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_sim.audit.gaussian import epsilon_of
from fl_mobile.aggregation.single import laid_out
from fl_mobile.agreement import Agreement
from fl_mobile.client.answer import answer, terms_of
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.server.publish import assign, publish
from fl_mobile.server.step import ServerRules, folding_of, step
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Spec, Tensors, cut

MOST = 500
"""Canaries of a round."""
CROWDED = 20
"""At most one canary in so many dimensions: the parts of k − 1 others along one add (k/d)·C² to the variance."""
CONFIDENCE = 2.576
"""Standard errors that the bound stays below its estimate: one-sided 99.5 %."""


@dataclass(frozen=True)
class CanaryBound:
    """What canaries say about one round.

    Attributes:
        canaries: How many were sent; as many were not.
        accepted: How many the server took.
        shift: Estimated distance of the two means, in standard deviations; its inverse is the noise multiplier that
            a Gaussian mechanism would have.
        epsilon: Estimate at ``delta``.
        epsilon_low: Lower bound at ``delta``, with 99.5 % confidence.
        delta: Of both.
    """

    canaries: int
    accepted: int
    shift: float
    epsilon: float
    epsilon_low: float
    delta: float


def canary_bound(
    agreement: Agreement,
    rules: ServerRules,
    plan: FitPlan,
    shelf: Shelf,
    *,
    delta: float,
    seed: int,
    noise: float = 0.0,
) -> CanaryBound:
    """Plays one round of canaries through the client, the wire and the server of a federation.

    Args:
        plan: Local training of round 0, as the experiment asks for it.
        shelf: Somewhere to put what is published.
        delta: Of ε.
        seed: Of the directions.
        noise: Multiplier of Gaussian noise put on the sum beside what the server does; its deviation is
            ``noise`` times the norm of a canary.

    Raises:
        ConfigError: The model is too small for canaries not to meet, or the rule has no sum to put noise on.
    """
    if rules.rule.reference:
        raise ConfigError("canaries point nowhere: a rule that trusts its own update alone listens to none of them")
    trained = {path: t for path, t in agreement.spec.items() if t.trainable}
    size = sum(t.size for t in trained.values())
    count = min(MOST, size // CROWDED)
    if count < 10:
        raise ConfigError(f"a model of {size} weights is too small to audit: 10 canaries need {10 * CROWDED}")
    released, accepted, norm = _released(
        agreement=agreement, rules=rules, plan=plan, shelf=shelf, trained=trained, count=count, seed=seed
    )
    if noise:
        released = released + rng_for(seed, "audit-noise").normal(0, noise * norm / max(1, accepted), size)
    present, absent = (
        np.array([np.einsum("i,i->", direction(seed, which, n, size), released) for n in range(count)], np.float64)
        for which in ("sent", "absent")
    )
    return bound_of(present, absent, accepted=accepted, delta=delta)


def bound_of(present: np.ndarray, absent: np.ndarray, *, accepted: int, delta: float) -> CanaryBound:
    """Returns what the parts along canaries that were there and that were not say, ``float64[k]`` each."""
    count = len(present)
    spread = math.sqrt((present.var(ddof=1) + absent.var(ddof=1)) / 2)
    shift = float((present.mean() - absent.mean()) / spread) if spread else 0.0
    # Of Cohen's d: the means' own error, and that of the pooled deviation.
    error = math.sqrt(2 / count + shift**2 / (4 * count))
    return CanaryBound(
        canaries=count,
        accepted=accepted,
        shift=shift,
        epsilon=epsilon_of(shift, delta),
        epsilon_low=epsilon_of(shift - CONFIDENCE * error, delta),
        delta=delta,
    )


def direction(seed: int, which: str, number: int, size: int) -> np.ndarray:
    """Returns ``float32[size]`` of length 1, drawn again wherever it is needed: a thousand do not fit into memory."""
    row = rng_for(seed, "canary", which, number).standard_normal(size, dtype=np.float32)
    return row / np.sqrt(np.einsum("i,i->", row, row))


def _released(
    agreement: Agreement, rules: ServerRules, plan: FitPlan, shelf: Shelf, trained: Spec, *, count: int, seed: int
) -> tuple[np.ndarray, int, float]:
    """Returns the step that the released model makes, ``float32[d]``, how many packets were accepted, and how long
    each canary was: as long as the server clips to, where it clips.
    """
    state = agreement.algorithm.init(agreement.initial, agreement.spec)
    state, assignment = assign(agreement, rules, state, plan)
    decoded = publish(agreement, state, shelf).decoded
    terms, norm = terms_of(agreement, assignment, decoded, {}), assignment.clip_norm or 1.0
    still: Tensors = {p: np.zeros(t.shape, np.float32) for p, t in agreement.spec.items() if p not in trained}
    size = sum(t.size for t in trained.values())

    def packet(number: int) -> bytes:
        whole = still | cut(np.float32(norm) * direction(seed, "sent", number, size), trained)
        update = Update({path: whole[path] for path in agreement.spec}, 1, {"loss": 0.0})
        return answer(terms, update, seed_for(seed, "canary-codec", number)).packet

    folded = folding_of(agreement, rules, assignment)(map(packet, range(count)))
    after, report = step(
        agreement=agreement, rules=rules, state=state, assignment=assignment, decoded=decoded, folded=folded
    )
    moved = {path: after.weights[path] - state.weights[path] for path in trained}
    return laid_out(moved, trained), report.accepted, norm
