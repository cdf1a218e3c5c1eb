"""Noise that a client adds to its own update: what leaves it is private whatever the server does with it.

```
update ─ clip in float64, cut to whole numbers ─ + discrete Gaussian on every coordinate ─ float32 ─▶ codec ─▶ packet
```
Two updates that are clipped to C are at most 2C apart, so noise of z·C is the Gaussian mechanism with multiplier z/2
between any two of them. All that comes after the noise is computed from what is private already: masks, codecs that are
biased, a step that follows from the values, the server's clipping and mean.

To the bit, for clients in any language, over all values in model order:

* norm: the square root of the sum of squares, float64, from left to right. Steps of the grid: ``UNIT / C``; of one
  longer than ``C·(1 − 2⁻²⁴)``, ``UNIT·(1 − 2⁻²⁴)/norm``. A value is ``value · steps`` without its fraction.
* key: `derive` from the device's secret, ``"local-noise"``, run, round and the SHA-256 of ``"C/σ"``, C as Python's
  ``repr`` writes it, and the whole numbers, int64, little-endian.
* draws: `gaussian.add_gaussian` with ``σ = ⌈z · UNIT · (1 + 2⁻⁴⁰)⌉``, words from the ChaCha20 keystream of that key.
* what is encoded: the sums times ``C / UNIT``, rounded to float32.

The same update of the same round gets the same noise, so that a packet that is made again after a crash tells nothing
new; another one gets independent noise, so that their difference does not tell both.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import ConfigError, DivergedError
from fl_mobile.privacy.gaussian import LARGEST_SIGMA, add_gaussian
from fl_mobile.privacy.keys import Keystream, derive
from fl_mobile.tensors import Tensors

UNIT = 1 << 30
"""Steps of the grid in the length of the clipping norm."""

_SHORT = 1 - 2.0**-24
"""Past what a sum of 2²⁸ squares in float64 is rounded by."""

LEAST_NOISE, MOST_NOISE = 0.3, LARGEST_SIGMA / UNIT / 4
MOST_ANSWERS = (1 << 31) - 1


@dataclass(frozen=True)
class LocalNoise:
    """What every client of a run does before anything leaves it; part of the terms, not of a round's assignment.

    Attributes:
        clip_norm: C, L2 norm of an update.
        noise_multiplier: z: standard deviation of the noise on a coordinate, over C.
        answers: A client makes so many at most, and then no more.
    """

    clip_norm: float
    noise_multiplier: float
    answers: int

    def __post_init__(self) -> None:
        if not 1e-8 <= self.clip_norm <= 1e8:
            raise ConfigError(f"privacy.clip-norm must be from 1e-8 to 1e8, got {self.clip_norm}")
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise ConfigError(
                f"privacy.noise-multiplier must be from {LEAST_NOISE} to {MOST_NOISE:g}, got {self.noise_multiplier}"
            )
        if not 1 <= self.answers <= MOST_ANSWERS:
            raise ConfigError(f"a client must be allowed to answer at least once, got {self.answers} answers")

    @property
    def sigma(self) -> int:
        """Parameter of the noise, in steps of the grid; rounded up."""
        return math.ceil(self.noise_multiplier * UNIT * (1 + 2.0**-40))


def noised(update: Tensors, noise: LocalNoise, *, secret: bytes, run: str, round_num: int) -> Tensors:
    """Returns the update as it may leave its client, ``float32``; noise is on every coordinate, zeros too.

    Args:
        secret: The device's own 32 bytes, which nobody else has.
        run: Names the federation.

    Raises:
        DivergedError: The update holds NaN or Inf.
    """
    values = np.concatenate([value.reshape(-1) for value in update.values()] or [np.zeros(0)]).astype(np.float64)
    whole = _on_grid(values, noise.clip_norm)
    digest = hashlib.sha256(f"{noise.clip_norm!r}/{noise.sigma}".encode() + whole.astype("<i8").tobytes()).digest()
    stream = Keystream(derive(secret, "local-noise", run, round_num, digest))
    add_gaussian(whole, noise.sigma, stream)
    private, at, out = (whole * (noise.clip_norm / UNIT)).astype(np.float32), 0, {}
    for path, value in update.items():
        out[path] = private[at : at + value.size].reshape(value.shape)
        at += value.size
    return out


def _on_grid(values: np.ndarray, clip_norm: float) -> np.ndarray:
    """Returns ``int64[n]``, at most `UNIT` long."""
    with np.errstate(over="ignore"):
        norm = math.sqrt(np.cumsum(np.square(values))[-1]) if len(values) else 0.0
    if not math.isfinite(norm):
        raise DivergedError("the update holds NaN or Inf. Local training diverged; lower train.learning-rate.")
    steps = UNIT / clip_norm if norm <= clip_norm * _SHORT else UNIT * _SHORT / norm
    return np.trunc(values * steps).astype(np.int64)
