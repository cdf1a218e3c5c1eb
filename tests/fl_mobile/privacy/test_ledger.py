"""ε against numbers from the notes, against composition written out here, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from fl_mobile.errors import ConfigError
from fl_mobile.privacy import Claim, ledger, open_ledger
from fl_mobile.privacy.accounting import curve
from fl_mobile.privacy.ledger import counts_to, solved
from tests.fl_mobile.samples import philox

TABLE = {
    (1000, 100, 1.1, 100, 1e-5): {"poisson": 5.913, "poisson rdp": 6.621, "fixed-size": 53.65, "none-assumed": 79.28},
    (3383, 120, 1.2, 100, 1e-5): {"poisson": 1.707, "poisson rdp": 1.986},
}
"""privacy-and-faults.md §3, measured with another call of the library: (N, m, z, T, δ) → ε."""


@pytest.mark.parametrize("row", TABLE)
def test_epsilon_is_that_of_the_table(row: tuple[int, int, float, int, float]) -> None:
    population, cohort, z, rounds, delta = row
    for name, expected in TABLE[row].items():
        sampling, _, rdp = name.partition(" ")
        found = curve(Claim(sampling, population, cohort, z, delta), [rounds])[0]
        assert found[1 if rdp else 0] == pytest.approx(expected, rel=1e-3), name


def test_replace_one_costs_what_twice_the_sensitivity_costs() -> None:
    """What others book for a cohort of fixed size is 12.26 in the first row: a quarter of the truth."""
    claim = Claim("fixed-size", 1000, 100, 1.1, 1e-5)
    assert curve(claim, [100])[0][0] > 4 * 12.26  # type: ignore[operator]


def delta_of(z: float, q: float, rounds: int, epsilon: float) -> float:
    """Returns δ(ε) of composed Poisson-subsampled Gaussians, removal and addition, by Fourier transform of the loss.

    A second implementation: characteristic functions on a grid of its own, no buckets, no truncation but the grid's.
    """
    worst = 0.0
    for remove in (True, False):
        x = np.linspace(-14 * z, 14 * z + 1, 200_001)
        p0, p1 = stats.norm.pdf(x, 0, z), stats.norm.pdf(x, 1, z)
        mixed = (1 - q) * p0 + q * p1
        upper, lower = (mixed, p0) if remove else (p0, mixed)
        loss = np.log(upper) - np.log(lower)
        mass = upper * (x[1] - x[0])
        mass /= mass.sum()
        step, size = max(epsilon, 0.5) / 4000, 1 << 17
        # Each loss is split between its two neighbours on the grid, which keeps its mean.
        at = loss / step
        low = np.floor(at).astype(np.int64)
        part = at - low
        pmf = np.zeros(size)
        np.add.at(pmf, low % size, mass * (1 - part))
        np.add.at(pmf, (low + 1) % size, mass * part)
        composed = np.fft.irfft(np.fft.rfft(pmf) ** rounds, size)
        losses = np.fft.fftfreq(size, 1 / size) * step
        worst = max(worst, float(np.sum(np.clip(composed, 0, None) * np.clip(1 - np.exp(epsilon - losses), 0, None))))
    return worst


def random_claims(count: int) -> list[tuple[Claim, int]]:
    rng = philox(11)
    out = []
    for _ in range(count):
        population = int(10 ** rng.uniform(2, 5))
        cohort = max(2, int(population * 10 ** rng.uniform(-2.5, -0.5)))
        z, delta = float(rng.uniform(0.7, 3)), float(10 ** rng.uniform(-3, -1) / population)
        out.append((Claim("poisson", population, min(cohort, population), z, delta), int(10 ** rng.uniform(0, 2.3))))
    return out


def check_against_second_composition(claims: list[tuple[Claim, int]]) -> None:
    for claim, rounds in claims:
        epsilon = curve(claim, [rounds])[0][0]
        assert epsilon is not None
        again = delta_of(claim.noise_multiplier, claim.rate, rounds, epsilon)
        assert again <= claim.delta * 1.02, (claim, rounds, "less is claimed than is spent")
        less = delta_of(claim.noise_multiplier, claim.rate, rounds, epsilon / 1.01 - 1e-3)
        assert less >= claim.delta * 0.98, (claim, rounds, "more than a hundredth too much is booked")


def test_the_ledger_agrees_with_a_second_composition() -> None:
    check_against_second_composition(random_claims(200)[:6])


@pytest.mark.slow
def test_the_ledger_agrees_with_a_second_composition_on_200_settings() -> None:
    check_against_second_composition(random_claims(200))


def test_a_ledger_comes_from_its_own_process_and_rises() -> None:
    book = open_ledger(Claim("poisson", 3000, 120, 1.2, 1e-4), 20)
    spent = [book.after(t).epsilon for t in range(21)]
    assert spent == sorted(spent)
    assert spent[0] == 0
    for t in (1, 7, 20):
        fresh = curve(book.claim, [t])[0][0]
        assert fresh <= book.after(t).epsilon <= 1.01 * fresh  # type: ignore[operator]
    assert book.after(20).epsilon < book.after(20).epsilon_rdp < book.after(20).epsilon_unamplified  # type: ignore[operator]
    with pytest.raises(ConfigError, match="opened for 20 rounds"):
        book.after(21)


def test_between_computed_rounds_the_next_one_is_booked() -> None:
    counts = counts_to(5000)
    assert counts[-1] == 5000
    assert all(b - a <= max(1, 0.01 * a) for a, b in pairwise(counts))
    book = ledger.Ledger(Claim("none-assumed", 100, 10, 1.0, 1e-3), tuple(ledger.Spent(t, t, None, t) for t in counts))
    assert all(t <= book.after(t).epsilon <= 1.01 * t for t in range(1, 5001))


def test_a_target_is_met_by_the_least_noise() -> None:
    claim = solved(Claim("poisson", 1000, 100, 0.3, 1e-5), 100, 4.0)
    assert claim.noise_multiplier == pytest.approx(1.386, rel=2e-3), "privacy-and-faults.md §3"
    assert curve(claim, [100])[0][0] <= 4.0  # type: ignore[operator]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "delta is one over the population": (lambda: Claim("poisson", 100, 10, 1.0, 0.01), "below 1/100"),
    "delta is nothing": (lambda: Claim("poisson", 100, 10, 1.0, 0.0), "above 0"),
    "a cohort of one": (lambda: Claim("poisson", 100, 1, 1.0, 1e-3), "from 2"),
    "a cohort above the population": (lambda: Claim("poisson", 100, 101, 1.0, 1e-3), "from 2"),
    "too little noise": (lambda: Claim("poisson", 100, 10, 0.29, 1e-3), "at least 0.3"),
    "noise that is no number": (lambda: Claim("poisson", 100, 10, math.nan, 1e-3), "at least 0.3"),
    "no such sampling": (lambda: Claim("poison", 100, 10, 1.0, 1e-3), "Did you mean 'poisson'"),
    "a target of nothing": (lambda: solved(Claim("poisson", 100, 10, 1.0, 1e-3), 5, 0.0), "above 0"),
    "a target out of reach": (lambda: solved(Claim("poisson", 10, 10, 1.0, 1e-3), 500, 1e-4), "up to 1000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, told = REFUSED[name]
    with pytest.raises(ConfigError, match=told):
        make()


def test_a_claim_that_needs_too_much_memory_ends_its_own_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_MODULE", "tests.fl_mobile.privacy.hungry")
    ledger._asked.cache_clear()
    with pytest.raises(ConfigError, match=r"MemoryError.*noise-multiplier"):
        open_ledger(Claim("poisson", 100, 10, 1.0, 1e-3), 3)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ledger._asked.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'fl-mobile\[privacy\]'"):
        open_ledger(Claim("poisson", 100, 10, 1.0, 1e-3), 3)
