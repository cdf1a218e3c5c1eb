"""A server step in whole numbers, so that it can be forwarded: what the model moved by, as sums of the round's buckets.

```
algorithm's step ─ mean of each bucket ─ rint(· / g·Δ) = s ─ n_{t+1} = n_t + P_tᵀ·g·s ─▶ the next model, to the bit
```
Rounding adds a twelfth to the noise of the sketch itself, in random directions as the sketch's; see `wire.forward`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fl_mobile.agreement import Agreement
from fl_mobile.codecs.sketch.projection import bucket_sums, spread
from fl_mobile.errors import ConfigError
from fl_mobile.records import ServerState
from fl_mobile.tensors import Tensors, cut
from fl_mobile.wire.download import forwarding_of
from fl_mobile.wire.forward import LARGEST, spread_counts

OUTSIDE = 1e-3
"""Part of a step's length that may lie outside the round's projection: what float32 sums leave there."""


def snapped(agreement: Agreement, before: ServerState, after: ServerState) -> ServerState:
    """Returns ``after`` with its step from ``before`` rounded to whole sums; statistics stay.

    Raises:
        ConfigError: The step is no sum of the round's buckets: an algorithm or a rule that cannot be forwarded.
    """
    lattice = agreement.lattice(before.round_num)
    forwarding = forwarding_of(agreement, lattice)
    if forwarding is None or lattice is None:
        return after
    k, key = forwarding.upload.k, forwarding.key(before.round_num)
    moves = {path: after.weights[path] - before.weights[path] for path in forwarding.trainable}
    values = sum(move.size for move in moves.values())
    each = bucket_sums(moves, key, k) / np.maximum(spread_counts(key, values, k), 1)
    if not np.isfinite(each).all():
        return after  # diverged, which whoever looks at the model will say
    _check_inside(moves, spread(each, key, values))
    rms = float(np.sqrt(np.mean(np.square(each)))) if len(each) else 0.0
    if not rms:
        return after
    largest = float(np.abs(each).max())
    gain = max(1, round(rms / lattice.step), int(np.ceil(largest / (lattice.step * (LARGEST - 1)))))
    steps = np.rint(each / (lattice.step * gain)).astype(np.int64) * gain
    moved = cut(spread(steps, key, values), forwarding.trainable)
    point = lattice.point(before.weights)
    reached = {path: (value + moved[path]).astype(np.int32) for path, value in point.items()}
    return replace(after, weights=lattice.weights(reached, after.weights))


def _check_inside(moves: Tensors, inside: np.ndarray) -> None:
    flat = np.concatenate([move.reshape(-1) for move in moves.values()]).astype(np.float64)
    rest, whole = float(np.linalg.norm(flat - inside)), float(np.linalg.norm(flat))
    if not rest <= OUTSIDE * whole:
        raise ConfigError(
            "download.mode forward: the server's step is no multiple of a mean of the round's uploads"
            f" ({rest / whole:.2g} of its length lies elsewhere), so their sums do not say what it did."
            " Use download.mode delta, or plain averaging: server.algorithm fedavg, server.aggregation mean"
        )
