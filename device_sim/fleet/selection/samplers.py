"""Who is asked: cohorts of one round, drawn from candidates that can, never by a scan of the population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from device_sim.fleet.ledger import Ledger
from device_sim.fleet.selection.cohort import Choice, Request, choice, first, limited
from device_sim.fleet.selection.oort import Guided, oort
from device_sim.fleet.selection.strata import STRATA
from device_sim.fleet.selection.walk import head
from fl_mobile.errors import check_known
from fl_mobile.parameters import NoParameters, check_parameters, parameter
from fl_mobile.seeds import rng_for, uniforms
from fl_mobile.table import Table


@dataclass(frozen=True)
class Stratification:
    """[selection] of the stratified sampler."""

    strata: str = parameter("profile", f"{' | '.join(STRATA)}, in proportion to the population", known=STRATA)

    def __post_init__(self) -> None:
        check_parameters(self, "selection")


@dataclass(frozen=True)
class Candidates:
    """[selection] of power of choice."""

    candidates: int = parameter(
        0, "d: candidates, of which the highest losses are taken; 0 is twice the cohort", at_least=0
    )

    def __post_init__(self) -> None:
        check_parameters(self, "selection")


def uniform(request: Request, ledger: Ledger) -> Choice:
    """Returns ``count`` devices, all equally likely."""
    return first(request, request.count)


def poisson(request: Request, ledger: Ledger) -> Choice:
    """Returns every device with probability ``count / population``, independently of the others.

    What differential privacy accounts for. The size is binomial and given it all sets are equally likely, so the
    population need not be visited.
    """
    rng = rng_for(request.seed, request.key, "cohort-size")
    size = int(rng.binomial(request.population, min(1.0, request.count / request.population)))
    asked = head(request.seed, request.key, "cohort", population=request.population, count=size)
    codes = request.refusals(asked)
    return choice(asked[codes == 0], codes)


def stratified(request: Request, ledger: Ledger) -> Choice:
    """Returns ``count`` devices; strata get their shares, over askings in a row too, and one without a share nobody."""
    wanted = np.append(apportion(request.count, np.array(request.stratum_shares), request.offset), 0)
    last = len(wanted) - 1  # devices of no stratum, which get no seat
    taken, refused, got = [], [], np.zeros(len(wanted), np.int64)
    for asked in limited(request):
        stratum, codes = request.stratum_of(asked), request.refusals(asked)
        stratum = np.where((stratum < 0) | (stratum > last), last, stratum)
        for device, code, its in zip(asked, codes, stratum, strict=True):
            if got[its] < wanted[its]:
                refused.append(code)
                if code == 0:
                    got[its] += 1
                    taken.append(device)
        if (got >= wanted).all():
            break
    return choice(np.array(taken, np.int64), np.array(refused, np.uint8))


def power_of_choice(request: Request, ledger: Ledger) -> Choice:
    """Returns the ``count`` of ``candidates`` devices whose last known local loss is highest.

    Cho, Wang and Joshi, "Client selection in federated learning: convergence analysis and power-of-choice selection
    strategies" (2020), the variant rpow-d that asks nobody for a loss: a device not seen yet counts as infinitely bad.
    Candidates are drawn evenly here, in the paper in proportion to their examples. Where only a part of the cohort is
    wanted, it is drawn evenly from those that a whole cohort would be.
    """
    drawn = first(request, max(request.cohort, request.plan.candidates or 2 * request.cohort))
    loss = np.nan_to_num(ledger.column("loss", drawn.devices), nan=np.inf)
    ties = uniforms(request.seed, request.key, "ties", index=drawn.devices)
    worst = np.lexsort((ties, -loss))[: request.cohort]
    part = np.argsort(uniforms(request.seed, request.key, "part", index=drawn.devices[worst]))[: request.count]
    return choice(drawn.devices[worst[part]], drawn.refused)


@dataclass(frozen=True)
class SamplerRow:
    """One row of `SAMPLERS`.

    Attributes:
        choose: A request and what is known of devices → a cohort.
        parameters: The record of its parameters, `Request.plan`: keys of [selection].
        remembers: Whether it asks what devices did before.
    """

    choose: Callable[[Request, Ledger], Choice]
    parameters: type = NoParameters
    remembers: bool = False


SAMPLERS: Table[SamplerRow] = Table(
    "sampler",
    SamplerRow,
    {
        "uniform": SamplerRow(uniform),
        "poisson": SamplerRow(poisson),
        "stratified": SamplerRow(stratified, Stratification),
        "power-of-choice": SamplerRow(power_of_choice, Candidates, remembers=True),
        "oort": SamplerRow(oort, Guided, remembers=True),
    },
)
"""``selection.sampler`` → sampler."""


def choose(name: str, request: Request, ledger: Ledger) -> Choice:
    """Returns the cohort that the sampler of that name draws.

    Raises:
        ConfigError: No sampler of that name.
    """
    check_known("selection.sampler", name, SAMPLERS)
    row = SAMPLERS[name]
    if isinstance(request.plan, NoParameters):
        request = replace(request, plan=row.parameters())
    return row.choose(request, ledger)


def apportion(count: int, shares: np.ndarray, offset: float = 0.5) -> np.ndarray:
    """Returns ``int64[strata]`` that add up to ``count``, each less than one seat from its exact share.

    Systematic sampling (Madow and Madow 1944): over even offsets in [0, 1) every stratum gets its share on average.

    >>> [apportion(1, np.array([0.5, 0.25, 0.25]), offset).tolist() for offset in (0.2, 0.4, 0.6, 0.8)]
    [[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    """
    ends = np.round(count * np.cumsum(shares) / shares.sum(), 9)  # whole shares stay whole
    ends[-1] = count
    filled = np.minimum(np.floor(ends + offset), count).astype(np.int64)  # an offset next to 1 rounds up to it
    seats: np.ndarray = np.diff(filled, prepend=0)
    return seats
