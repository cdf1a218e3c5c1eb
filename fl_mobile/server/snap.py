"""A server step in whole numbers, so that it can be forwarded: what the model moved by, as sums of the round's buckets.

```
algorithm's step ─ mean of each bucket ─ rint(· / g·Δ) = s ─ n_{t+1} = n_t + P_tᵀ·g·s ─▶ the next model, to the bit
                                      └─ or the largest by sign alone
```
Rounding adds a twelfth to the noise of the sketch itself, in random directions as the sketch's; see `wire.forward`.

With ``ternary`` p > 0 only the share p of the numbers that are largest move, all by one size with their own signs, as
in sparse ternary compression (Sattler et al., "Robust and communication-efficient federated learning from non-i.i.d.
data", IEEE TNNLS 2020). Nobody has to remember the others: what a bucket holds is drawn anew every round, so the small
ones are random directions. Of Gaussian numbers that adds ``p/E[|x|, x in the share]² − 1`` to the noise (0.87, 0.38 and
0.57 at p = 0.15, 0.3 and 1), at ``H(p) + p`` bits a number (0.76, 1.18 and 1) in place of 2.1. With a larger k for the
same noise the download is then shorter, and the upload longer.
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


def snapped(agreement: Agreement, before: ServerState, after: ServerState, ternary: float = 0.0) -> ServerState:
    """Returns ``after`` with its step from ``before`` rounded to whole sums; statistics stay.

    Args:
        ternary: Share of the numbers that move, the largest; 0: all, by whole numbers.

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
    if not each.any():
        return after
    steps = _largest(each / lattice.step, ternary) if ternary else _whole(each / lattice.step)
    moved = cut(spread(steps, key, values), forwarding.trainable)
    point = lattice.point(before.weights)
    reached = {path: (value + moved[path]).astype(np.int32) for path, value in point.items()}
    return replace(after, weights=lattice.weights(reached, after.weights))


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Returns ``int64[k]``: numbers, in lattice steps, rounded to multiples of their root mean square."""
    rms, largest = float(np.sqrt(np.mean(np.square(numbers)))), float(np.abs(numbers).max())
    gain = max(1, round(rms), int(np.ceil(largest / (LARGEST - 1))))
    return np.rint(numbers / gain).astype(np.int64) * gain


def _largest(numbers: np.ndarray, share: float) -> np.ndarray:
    """Returns ``int64[k]``: the largest of the numbers by sign, of the size that makes them right on average."""
    sizes = np.abs(numbers)
    count = max(1, round(share * len(numbers)))
    kept = sizes >= np.partition(sizes, -count)[-count]
    gain = max(1, round(float(np.sum(sizes * sizes) / np.sum(sizes[kept]))))
    return (np.sign(numbers) * kept).astype(np.int64) * gain


def _check_inside(moves: Tensors, inside: np.ndarray) -> None:
    flat = np.concatenate([move.reshape(-1) for move in moves.values()]).astype(np.float64)
    rest, whole = float(np.linalg.norm(flat - inside)), float(np.linalg.norm(flat))
    if not rest <= OUTSIDE * whole:
        raise ConfigError(
            "download.mode forward: the server's step is no multiple of a mean of the round's uploads"
            f" ({rest / whole:.2g} of its length lies elsewhere), so their sums do not say what it did."
            " Use download.mode delta, or plain averaging: server.algorithm fedavg, server.aggregation mean"
        )
