"""The one way out of a private sum: noise on every coordinate, then the division by a public number.

```
ClippedSum ─ int64 sum ─ + discrete Gaussian ─ · clip_norm / UNIT / cohort ─▶ the update every step sees
     └────── clients within the norm ─ + discrete Gaussian ─▶ the next clipping norm
```
The noise of a round is a function of the secret key, the round and the sum itself. A round that is played again after a
crash releases the same numbers if its sum is the same, and independent noise if it is not: neither averages the noise
away, nor takes it off by subtraction. The key is replaced by its own hash in the state that is committed with the model
and the ledger's row, so that who takes a server later cannot repeat the noise of earlier rounds.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np

from fl_mobile.privacy.clipped_sum import UNIT, ClippedSum
from fl_mobile.privacy.gaussian import add_gaussian
from fl_mobile.privacy.keys import Keystream, derive
from fl_mobile.privacy.rules import CLIP_NORMS, PrivacyRules
from fl_mobile.records import PrivacyState
from fl_mobile.tensors import Tensors

_FINE = 1 << 20
"""Steps of the count's grid in what one client changes."""


def release(
    total: ClippedSum, rules: PrivacyRules, state: PrivacyState, round_num: int
) -> tuple[Tensors, PrivacyState]:
    """Returns the noised sum over the expected cohort, ``float32``, and the state that has been charged for it.

    An empty sum is released like any other: that nobody came is not for others to know.
    """
    stream = Keystream(derive(state.key, "noise", round_num, _digest(total)))
    step = total.clip_norm / UNIT / rules.cohort
    delta = {}
    for path, values in total.total.items():
        noised = values.copy()
        add_gaussian(noised.reshape(-1), rules.sigma, stream)
        delta[path] = (noised * step).astype(np.float32)
    after = replace(state, key=derive(state.key, "next"), charged=state.charged + 1)
    return delta, replace(after, clip_norm=_next_norm(total, rules, stream)) if rules.quantile else after


def release_sum(total: ClippedSum, noise_multiplier: float, key: bytes) -> dict[str, np.ndarray]:
    """Returns a noised sum, ``float64``, as it is: for sums that are taken once, beside the rounds of a run.

    Args:
        noise_multiplier: Noise over the clipping norm.
        key: 32 secret bytes, used for this alone.
    """
    stream, sigma = Keystream(derive(key, "sums", _digest(total))), math.ceil(noise_multiplier * UNIT * (1 + 2.0**-40))
    released = {}
    for path, values in total.total.items():
        noised = values.copy()
        add_gaussian(noised.reshape(-1), sigma, stream)
        released[path] = noised * (total.clip_norm / UNIT)
    return released


def _next_norm(total: ClippedSum, rules: PrivacyRules, stream: Keystream) -> float:
    """Returns ``C·exp(−η(b − γ))`` with b the noised share of clients within C: too many within, and C shrinks."""
    count = np.array([total.within * _FINE], np.int64)
    add_gaussian(count, math.ceil(2 * rules.count_noise * _FINE), stream)
    share = 0.5 + float(count[0]) / _FINE / 2 / rules.cohort
    moved = total.clip_norm * math.exp(-rules.clip_rate * min(max(share - rules.quantile, -4.0), 4.0))
    return min(max(moved, CLIP_NORMS[0]), CLIP_NORMS[1])


def _digest(total: ClippedSum) -> bytes:
    digest = hashlib.sha256(f"{total.clip_norm!r}/{total.within}".encode())
    for path, values in total.total.items():
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(values, "<i8").data)
    return digest.digest()
