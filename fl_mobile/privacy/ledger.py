"""The ledger: what so many rounds have cost, known before the first of them is released.

All rounds of a run are the same mechanism, so what is booked is their number, which lies beside the model in the
checkpoint; the ledger says what it costs. ε is computed in a process of its own with a limit on its memory.
"""

from __future__ import annotations

import bisect
import functools
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from fl_mobile.errors import ConfigError
from fl_mobile.privacy.claim import FIXED_SIZE, POISSON, Claim
from fl_mobile.privacy.rules import LEAST_MULTIPLIER

PATIENCE_SECONDS = 600.0
_MODULE = "fl_mobile.privacy.accounting"


@dataclass(frozen=True)
class Spent:
    """What a number of rounds has cost, at the δ of the claim.

    Attributes:
        rounds: That this was computed for.
        epsilon: By the best accountant that knows the mechanism: PLD under Poisson sampling.
        epsilon_rdp: By Rényi accounting, for comparison; None where it is the only one, or gives no bound.
        epsilon_unamplified: If everybody knew who took part when.
    """

    rounds: int
    epsilon: float
    epsilon_rdp: float | None
    epsilon_unamplified: float


@dataclass(frozen=True)
class Ledger:
    """What each number of rounds costs.

    Attributes:
        claim: What ε is about.
        spent: By rising number of rounds.
    """

    claim: Claim
    spent: tuple[Spent, ...]

    def after(self, rounds: int) -> Spent:
        """Returns what ``rounds`` rounds cost at most: what was computed for them, or for the next larger number."""
        if rounds == 0:
            return Spent(0, 0.0, None, 0.0)
        at = bisect.bisect_left(self.spent, rounds, key=lambda spent: spent.rounds)
        if at == len(self.spent):
            raise ConfigError(f"the ledger was opened for {self.spent[-1].rounds} rounds, not for {rounds}")
        return self.spent[at]

    @property
    def method(self) -> str:
        """How ε was computed."""
        if self.claim.shares:
            return "Rényi accounting (RDP), and the bound for sums of discrete Gaussians"
        exact = "the exact conversion of Gaussian noise"
        return {POISSON: "privacy loss distributions (PLD)", FIXED_SIZE: "Rényi accounting (RDP)"}.get(
            self.claim.sampling, exact
        )


def open_ledger(claim: Claim, rounds: int) -> Ledger:
    """Returns the ledger of a run of at most ``rounds`` rounds.

    Raises:
        ConfigError: `dp-accounting` is not installed, or needs more memory or time than it may have.
    """
    counts = counts_to(rounds)
    found = _asked(json.dumps({"claim": asdict(claim), "counts": counts}))
    return Ledger(claim, tuple(Spent(t, *row) for t, row in zip(counts, found, strict=True)))


def solved(claim: Claim, rounds: int, epsilon: float) -> Claim:
    """Returns the claim with the least noise multiplier that spends at most ``epsilon`` in ``rounds`` rounds.

    Raises:
        ConfigError: None does, or as `open_ledger`.
    """
    if epsilon <= 0:
        raise ConfigError(f"privacy.target-epsilon must be above 0, got {epsilon:g}: nothing useful can be released")
    least = replace(claim, noise_multiplier=LEAST_MULTIPLIER)
    found = _asked(json.dumps({"claim": asdict(least), "rounds": rounds, "epsilon": epsilon}))
    return replace(claim, noise_multiplier=float(found))


def counts_to(rounds: int) -> list[int]:
    """Returns the numbers of rounds that are computed, ``rounds`` the last: no step is longer than a hundredth.

    >>> counts_to(3), len(counts_to(1000)), counts_to(1000)[-2:]
    ([1, 2, 3], 384, [996, 1000])
    """
    counts = [1]
    while counts[-1] < rounds:
        counts.append(min(rounds, max(counts[-1] + 1, int(counts[-1] * 1.01))))
    return counts


@functools.lru_cache(maxsize=256)
def _asked(request: str) -> Any:
    if importlib.util.find_spec("dp_accounting") is None:
        raise ConfigError(
            "[privacy] needs the package dp-accounting, which computes ε: pip install 'fl-mobile[privacy]'"
        )
    # Threads of a linear algebra library each reserve address space, of which there is a limit.
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=request,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env={**os.environ, **quiet, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"ε could not be computed within {PATIENCE_SECONDS:g} s. Raise privacy.noise-multiplier, or lower"
            " train.rounds"
        ) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ConfigError(
            f"ε could not be computed ({said}). Raise privacy.noise-multiplier, or lower train.rounds, and try again."
        )
    return json.loads(done.stdout)
