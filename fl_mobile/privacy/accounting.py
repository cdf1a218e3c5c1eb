"""ε by `dp-accounting`, in a process of its own: JSON in, JSON out. Run by `ledger`; imported by nobody else.

| sampling     | event of a round                                  | ε by                                       |
|--------------|---------------------------------------------------|--------------------------------------------|
| poisson      | `PoissonSampled(q, Gaussian(z))`                  | PLD, add or remove one; RDP beside it      |
| fixed-size   | `SampledWithoutReplacement(N, m, Gaussian(z/2))`  | RDP, replace one: PLD has no such event    |
| none-assumed | `Gaussian(z)`                                     | exactly, of Gaussian(z/√T); RDP beside it  |
| in shares    | `Gaussian(z)`, T rounds of one client             | RDP, and what a sum of discrete ones costs |
| local noise  | `Gaussian(z/2)`, T rounds of one client           | exactly, of Gaussian(z/2√T); RDP beside it |

The Rényi divergences of the discrete Gaussian are no larger than the Gaussian's (Canonne, Kamath and Steinke, NeurIPS
2020, proposition 5), on the coarse grid of masked sums too, for which the exact conversion is not proven.
RDP's accountant does not double the sensitivity of replace-one by itself, hence z/2 (google/differential-privacy#378).
"""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fl_mobile.privacy.claim import FIXED_SIZE, POISSON, Claim

MEMORY_BYTES = 6 << 30
"""Address space of the process; a claim that needs more is an attack on the server, or a slip."""


FINE, COARSE = 1e-4, 1e-3
"""Steps of privacy loss in which PLD reckons; it rounds up, by about a ten-thousandth of ε in coarse ones."""

MOST_MULTIPLIER = 1000.0


def curve(claim: Claim, counts: Sequence[int], interval: float = FINE) -> list[list[float | None]]:
    """Returns (ε, ε by RDP or None, ε without amplification) after so many rounds each.

    Args:
        counts: Rising.
        interval: Step of privacy loss for the last of them.
    """
    import dp_accounting

    z = claim.noise_multiplier / claim.distance
    plain = [dp_accounting.get_epsilon_gaussian(z / math.sqrt(t), claim.delta) for t in counts]
    by_rdp = _rdp(claim, counts)
    if claim.sampling == POISSON:
        best = _pld(claim, counts, interval)
    elif claim.sampling == FIXED_SIZE:
        best = by_rdp
    elif claim.shares:
        best = plain = _in_shares(claim, counts)
    else:
        best = plain
    beside = [None] * len(counts) if claim.sampling == FIXED_SIZE or claim.shares else by_rdp
    return [
        # A round that is booked as sampled costs no more than one that is not; RDP alone sometimes says so.
        [min(e, p), r if r is not None and math.isfinite(r) else None, p]
        for e, r, p in zip(best, beside, plain, strict=True)
    ]


def solve(claim: Claim, rounds: int, epsilon: float) -> float:
    """Returns the least noise multiplier, to 1/1000 above, with which ``rounds`` rounds cost at most ``epsilon``.

    Args:
        claim: Its own multiplier is the least that is tried.

    Raises:
        ValueError: None up to 1000 is enough.
    """

    def spent(z: float, interval: float = COARSE) -> float:
        found = curve(replace(claim, noise_multiplier=z), [rounds], interval)[0][0]
        assert found is not None
        return found

    low = high = max(1.0, claim.noise_multiplier)
    while spent(high) > epsilon:
        low, high = high, 2 * high
        if high > MOST_MULTIPLIER:
            raise ValueError(
                f"no noise multiplier up to {MOST_MULTIPLIER:g} spends only {epsilon:g} in {rounds} rounds"
            )
    while low > claim.noise_multiplier and low == high:
        low = max(claim.noise_multiplier, low / 2)
        low, high = (low, low) if spent(low) <= epsilon else (low, high)
    while high - low > 0.0005 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    while spent(high, FINE) > epsilon:
        high *= 1.0002
    return high


def _pld(claim: Claim, counts: Sequence[int], interval: float) -> list[float]:
    """Returns ε after each number of rounds; between the last ones a coarser grid, whose ε is never smaller."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    def after(counts: Sequence[int], interval: float) -> list[float]:
        one = pld.from_gaussian_mechanism(
            claim.noise_multiplier,
            sampling_prob=claim.rate,
            value_discretization_interval=interval,
            neighboring_relation=pld.NeighborRel.ADD_OR_REMOVE_ONE,
        )
        return [float(one.self_compose(t).get_epsilon_for_delta(claim.delta)) for t in counts]

    last = after(counts[-1:], interval)[0]
    return [*(min(spent, last) for spent in after(counts[:-1], max(interval, COARSE))), last]


def _in_shares(claim: Claim, counts: Sequence[int]) -> list[float]:
    """Returns ε of so many answers of one client, each the sum of discrete Gaussians of `shares`."""
    from dp_accounting.rdp import compute_epsilon

    orders = [1 + 1.03**n / 100 for n in range(440)]  # 1.01 to 4,300
    one = [order / (2 * claim.noise_multiplier**2) for order in orders]
    return [
        float(compute_epsilon(orders, [t * x for x in one], claim.delta * math.exp(-claim.beside * t))[0])
        + claim.beside * t
        for t in counts
    ]


def _rdp(claim: Claim, counts: Sequence[int]) -> list[float]:
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting import SampledWithoutReplacementDpEvent as WithoutReplacement
    from dp_accounting.rdp import RdpAccountant, compute_epsilon

    z, fixed = claim.noise_multiplier / claim.distance, claim.sampling == FIXED_SIZE
    event: Any = GaussianDpEvent(z)
    if claim.sampling == POISSON:
        event = PoissonSampledDpEvent(claim.rate, event)
    elif fixed:
        event = WithoutReplacement(claim.population, claim.cohort, GaussianDpEvent(z))
    relation = NeighboringRelation.REPLACE_ONE if fixed else NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = RdpAccountant(neighboring_relation=relation)
    accountant.compose(event)
    orders, one = accountant.orders, accountant.rdp  # composed anew for every count it would take ten times as long
    return [float(compute_epsilon(orders, t * one, claim.delta)[0]) for t in counts]


def limit_memory() -> None:
    """Makes an allocation beyond `MEMORY_BYTES` fail in this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no limits of this kind
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def answer(request: dict[str, Any]) -> Any:
    """Returns what a request asks for: ``curve`` with counts, or ``solve`` with rounds and epsilon."""
    claim = Claim(**request["claim"])
    if "counts" in request:
        return curve(claim, request["counts"])
    return solve(claim, request["rounds"], request["epsilon"])


if __name__ == "__main__":
    limit_memory()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # low orders that do not converge are left out, which costs nothing
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
