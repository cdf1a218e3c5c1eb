"""What telling two Gaussians apart says about ε, and back: the analytic Gaussian mechanism.

Balle & Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018, theorem 8: a release whose mean
moves by μ standard deviations is (ε, δ)-private if and only if

    δ ≥ Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ)
"""

from __future__ import annotations

import math

LARGEST = 1e6
"""An ε above this is told as this: nothing is private long before."""


def delta_of(shift: float, epsilon: float) -> float:
    """Returns the smallest δ for an ε, of a mean that moves by ``shift`` > 0 standard deviations."""
    return max(0.0, _cdf(shift / 2 - epsilon / shift) - math.exp(epsilon + _log_cdf(-shift / 2 - epsilon / shift)))


def epsilon_of(shift: float, delta: float) -> float:
    """Returns the smallest ε ≥ 0 for a δ.

    >>> round(epsilon_of(1.0, 1e-5), 2), epsilon_of(0.0, 1e-5)
    (4.38, 0.0)
    """
    if shift <= 0 or delta_of(shift, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(shift, high) > delta:
        low, high = high, 2 * high
        if high > LARGEST:
            return LARGEST
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(shift, middle) > delta else (low, middle)
    return high


def _cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def _log_cdf(x: float) -> float:
    if x > -30:
        return math.log(_cdf(x))
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) - 1 / (x * x)  # erfc is 0 in float64 here
