"""Who is asked: cohorts of one round, drawn from candidates that can, never by a scan of the population."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from device_sim.fleet.ledger import Ledger
from device_sim.fleet.selection.cohort import Choice, Request, choice, first, limited
from device_sim.fleet.selection.oort import oort
from device_sim.fleet.selection.walk import head
from fl_mobile.errors import check_known
from fl_mobile.seeds import rng_for, uniforms


def uniform(request: Request, ledger: Ledger) -> Choice:
    """Returns ``count`` devices, all equally likely."""
    return first(request, request.count)


def poisson(request: Request, ledger: Ledger) -> Choice:
    """Returns every device with probability ``count / population``, independently of the others.

    What differential privacy accounts for. The size is binomial and given it all sets are equally likely, so the
    population need not be visited.
    """
    rng = rng_for(request.seed, request.round_num, "cohort-size")
    size = int(rng.binomial(request.population, min(1.0, request.count / request.population)))
    asked = head(request.seed, request.round_num, "cohort", population=request.population, count=size)
    codes = request.ask(asked)
    return choice(asked[codes == 0], codes)


def stratified(request: Request, ledger: Ledger) -> Choice:
    """Returns ``count`` devices, each stratum with its share by largest remainder; one without a share gets none."""
    wanted = np.append(apportion(request.count, np.array(request.stratum_shares)), 0)
    taken, refused, got = [], [], np.zeros(len(wanted), np.int64)
    for asked in limited(request):
        stratum, codes = np.minimum(request.stratum_of(asked), len(wanted) - 1), request.ask(asked)
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
    Candidates are drawn evenly here, in the paper in proportion to their examples.
    """
    drawn = first(request, max(request.count, request.plan.candidates or 2 * request.count))
    loss = np.nan_to_num(ledger.column("loss", drawn.devices), nan=np.inf)
    ties = uniforms(request.seed, request.round_num, "ties", index=drawn.devices)
    order = np.lexsort((ties, -loss))
    return choice(drawn.devices[order[: request.count]], drawn.refused)


SAMPLERS: dict[str, Callable[[Request, Ledger], Choice]] = {
    "uniform": uniform,
    "poisson": poisson,
    "stratified": stratified,
    "power-of-choice": power_of_choice,
    "oort": oort,
}


def choose(name: str, request: Request, ledger: Ledger) -> Choice:
    """Returns the cohort that the sampler of that name draws.

    Raises:
        ConfigError: No sampler of that name.
    """
    check_known("selection.sampler", name, SAMPLERS)
    return SAMPLERS[name](request, ledger)


def apportion(count: int, shares: np.ndarray) -> np.ndarray:
    """Returns ``int64[strata]`` that add up to ``count``, nearest to ``shares`` by largest remainder (Hamilton)."""
    exact = count * shares / shares.sum()
    whole = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - whole), kind="stable")[: count - int(whole.sum())]
    whole[largest] += 1
    return whole
