"""Lower bounds on ε where devices add the noise: of one packet under `local`, of one masked sum under `distributed`.

A round of canaries says nothing of either: their noise adds up, and what is claimed is hidden by less of it.

* local: the server reads single packets. Each canary tells one update from its opposite, 2C away, the two that are
  hardest to hide from one another: N(C, σ²) against N(−C, σ²) along it.
* distributed: the server reads the numbers of a sum. Canaries are on the grid of those numbers, and only as many
  clients as a sum must have at least add their share of the noise: what is left when all others have gone.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from device_sim.audit.canaries import CROWDED, MOST, CanaryBound, bound_of, direction
from fl_mobile import wire
from fl_mobile.aggregation.single import laid_out
from fl_mobile.agreement import Agreement
from fl_mobile.privacy.local import LocalNoise, noised
from fl_mobile.privacy.shares import ShareNoise, add_share
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors, cut

LEAST = 200
"""Canaries, of which a bound is not far below what it bounds."""
MOST_VALUES = 10_000_000
"""Packets do not meet, but each is noise for a whole model, twice: of large models fewer are made."""


def packet_bound(agreement: Agreement, noise: LocalNoise, *, delta: float, seed: int) -> CanaryBound:
    """Returns what one packet of a client says of its update, through clip, noise, codec and wire."""
    trained = {path: t for path, t in agreement.spec.items() if t.trainable}
    size = sum(t.size for t in trained.values())
    layout = wire.Layout(trained, agreement.upload)

    def seen(number: int, sign: int) -> float:
        along = direction(seed, "packet", number, size)
        update = cut(np.float32(sign * noise.clip_norm) * along, trained)
        secret = hashlib.sha256(f"audit {seed} {number} {sign}".encode()).digest()
        private: Tensors = noised(update, noise, secret=secret, run="audit", round_num=0)
        packet = layout.pack(wire.Header(wire.UPDATE, 0, 0, 1, 0.0), private, rng_for(seed, "packet-codec", number))
        decoded = layout.unpack(packet).tensors
        return float(np.einsum("i,i->", along, laid_out(decoded, trained)))

    count = min(MOST, max(LEAST, MOST_VALUES // max(1, size)))
    one, other = (np.array([seen(n, sign) for n in range(count)]) for sign in (1, -1))
    return bound_of(one, other, accepted=2 * count, delta=delta)


def sum_bound(noise: ShareNoise, *, delta: float, seed: int) -> CanaryBound:
    """Returns what one masked sum says of its clients, which are as few as its terms allow.

    Where an update is sent as few numbers, few canaries have room in a sum, and several sums are looked at.
    """
    together = max(1, min(MOST, noise.numbers // CROWDED))
    present, absent = list[float](), list[float]()
    for play in range(math.ceil(LEAST / together)):
        total = np.zeros(noise.numbers, np.int64)
        sent, other = (
            [direction(seed, f"{which} in sum {play}", n, noise.numbers).astype(np.float64) for n in range(together)]
            for which in ("sent", "absent")
        )
        for number, along in enumerate(sent):
            total += noise.on_grid(noise.clip_norm * along, rng_for(seed, "grid", play, number))
        silent, roster = np.zeros(noise.numbers, np.int64), f"audit {play}".encode()
        for client in range(noise.least):
            secret = hashlib.sha256(f"audit {seed} {client}".encode()).digest()
            total += add_share(silent, noise, noise.least, secret=secret, roster=roster)
        present += [float(along @ total) for along in sent]
        absent += [float(along @ total) for along in other]
    return bound_of(np.array(present), np.array(absent), accepted=len(present), delta=delta)
