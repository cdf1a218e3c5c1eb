"""Noise in shares: every client adds a part of it under its mask, and the server learns the noisy sum alone.

```
numbers float64[k] ─ clip to C ─ · G/C, rounded at random, at most S long ─ + discrete Gaussian ─ mod 2^w ─▶ mask
```
* **Clip.** `sketch` rotates before it rounds. What is clipped are the rotated numbers themselves, so that nothing the
  projection did to an update's norm matters.
* **Rounding** makes a vector longer. It is repeated until the whole numbers are at most S long, ``S² = G² + k/4 + G +
  √k/2`` (conditional randomized rounding with β = e^−½; Kairouz, Liu and Steinke, "The distributed discrete Gaussian
  mechanism for federated learning with secure aggregation", ICML 2021, theorem 1); if it never is they are cut
  towards zero. So S, in whole numbers, is how far one client can move the sum, whatever it trained.
* **Shares.** With at least n clients in a sum each adds σᵢ = ⌈z·S/√n⌉. n is in the terms that all of them sign, and
  a client unmasks no sum of fewer: more drop-outs than that, and there is no sum to attack.
* **Their sum** is no discrete Gaussian, but within a factor e^±τ of one in every coordinate, with ``τ = 10·Σ_j
  exp(−2π²·σᵢ²·j/(j+1))``, j from 1 to n − 1 (the same theorem). As σᵢ ≥ 4 that is below 10⁻⁶⁰, and charged.
* **Modulus.** w holds six standard deviations of a sum of n equal vectors with its noise. What wraps is wrong, and as
  private as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError, DivergedError
from fl_mobile.privacy.gaussian import add_gaussian
from fl_mobile.privacy.keys import Keystream, derive
from fl_mobile.privacy.local import LEAST_NOISE, MOST_ANSWERS

MOST_MULTIPLIER = 1000.0
LEAST_SIGMA = 4
"""Of a share, in steps of the grid: below, a sum of discrete Gaussians is none by more than can be neglected."""

FINE = 4.0
"""Steps of the grid in C, over √k: rounding then makes a vector longer by about a hundredth."""

_TRIES = 100
_DEVIATIONS = 6


@dataclass(frozen=True)
class ShareNoise:
    """What every client of a run does before it masks; part of the terms, not of a round's assignment.

    Attributes:
        clip_norm: C, L2 norm of the numbers that an update is sent as.
        noise_multiplier: z: standard deviation of the noise on a sum, over what one client can move it by.
        answers: A client makes so many at most, and then no more.
        numbers: k, that an update is sent as.
        group: Most clients in a sum.
        least: Clients that must be in the sum of a group of that size.
    """

    clip_norm: float
    noise_multiplier: float
    answers: int
    numbers: int
    group: int
    least: int

    def __post_init__(self) -> None:
        if not 1e-8 <= self.clip_norm <= 1e8:
            raise ConfigError(f"privacy.clip-norm must be from 1e-8 to 1e8, got {self.clip_norm}")
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_MULTIPLIER:
            raise ConfigError(
                f"privacy.noise-multiplier must be from {LEAST_NOISE} to {MOST_MULTIPLIER:g}, got"
                f" {self.noise_multiplier}"
            )
        if not 1 <= self.answers <= MOST_ANSWERS:
            raise ConfigError(f"a client must be allowed to answer at least once, got {self.answers} answers")
        if not 1 <= self.least <= self.group or self.numbers < 1:
            raise ConfigError(f"a noisy sum is of numbers of at least one client, at most all of a group, got {self}")
        if self.width > 32:
            raise ConfigError(
                f"a noisy sum of {self.numbers} numbers of {self.group} clients needs"
                f" fields of {self.width} bits, at most 32: lower privacy.noise-multiplier or masks.group"
            )

    @property
    def grid(self) -> int:
        """G, steps in the length of the clipping norm."""
        return math.ceil(
            max(FINE * math.sqrt(self.numbers), LEAST_SIGMA * math.sqrt(self.group) / self.noise_multiplier)
        )

    @property
    def step(self) -> float:
        """Length of a step; the codec's."""
        return self.clip_norm / self.grid

    @property
    def longest(self) -> int:
        """S², the largest sum of squares of one client's whole numbers."""
        return self.grid**2 + math.floor(self.numbers / 4 + self.grid + math.sqrt(self.numbers) / 2)

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise on a sum, in steps of the grid."""
        return self.noise_multiplier * math.sqrt(self.longest)

    def share(self, least: int) -> int:
        """Returns σᵢ, where at least so many clients must be in the sum; rounded up."""
        return max(LEAST_SIGMA, math.ceil(self.sigma / math.sqrt(least) * (1 + 2.0**-40)))

    @property
    def width(self) -> int:
        """Bits of a field that holds a sum."""
        n = self.group
        spread = math.sqrt((n * self.grid) ** 2 / self.numbers + n / 4 + n * self.share(self.least) ** 2)
        return math.ceil(math.log2(2 * _DEVIATIONS * spread + 2))

    def fields(self, codec: Sketch) -> Sketch:
        """Returns the codec with the step and the width that follow from clip and noise."""
        return replace(codec, bits=1, width=self.width, step=self.step)

    def on_grid(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns ``int64[k]`` of ``float64[k]``, clipped, whose sum of squares is at most `longest`.

        Raises:
            DivergedError: A number is NaN or Inf.
        """
        with np.errstate(over="ignore"):
            norm = math.sqrt(float(np.sum(np.square(numbers))))
        if not math.isfinite(norm):
            raise DivergedError("the update holds NaN or Inf. Local training diverged; lower train.learning-rate.")
        steps = numbers * (self.grid / max(self.clip_norm, norm))
        for _ in range(_TRIES):
            whole: np.ndarray = np.floor(steps + rng.random(len(steps))).astype(np.int64)
            if int(np.dot(whole, whole)) <= self.longest:
                return whole
        whole = np.trunc(steps).astype(np.int64)
        return whole if int(np.dot(whole, whole)) <= self.longest else np.zeros_like(whole)


def add_share(whole: np.ndarray, noise: ShareNoise, least: int, *, secret: bytes, roster: bytes) -> np.ndarray:
    """Returns ``int64[k]`` with a client's share of the noise on every number.

    The same numbers in the same sum get the same noise, so that a packet that is made again tells nothing new; in
    another sum, of whatever round or clients, they get independent noise.

    Args:
        least: Clients that must be in the sum, by the terms that all of them have signed.
        secret: The device's own 32 bytes, which nobody else has.
        roster: Digest of the roster, which holds run, round and the fresh keys of all in it.
    """
    numbers = whole.astype("<i8")
    stream = Keystream(derive(secret, "noise share", noise.share(least), roster, numbers.tobytes()))
    noised = whole.astype(np.int64)
    add_gaussian(noised, noise.share(least), stream)
    return noised


def beside(numbers: int, group: int) -> float:
    """Returns what an answer costs in ε because a sum of discrete Gaussians is none, by the bound of the module's text.

    Both worlds' sums are within e^±τ in each of k numbers: ε grows by 2·k·τ, and 1/δ by half of that exponent.
    """
    exponents = (-2 * math.pi**2 * LEAST_SIGMA**2 * j / (j + 1) for j in range(1, group))
    return 2 * numbers * 10 * math.fsum(map(math.exp, exponents))
