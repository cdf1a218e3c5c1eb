"""The phone's side of a round: an `Update` goes in, the bytes that leave the phone come out."""

from __future__ import annotations

import numpy as np

from fl_mobile import wire
from fl_mobile.records import Update
from fl_mobile.tensors import check_finite, clip_by_norm


def encode_update(
    update: Update, layout: wire.Layout, rng: np.random.Generator, *, round_num: int, clip_norm: float = 0.0
) -> bytes:
    """Returns the upload packet of one device: clip → prune → quantize → entropy-code → pack.

    Args:
        update: What local training produced.
        layout: Of the agreed spec and the round's upload codec.
        rng: The device's own generator for this round, ``rng_for(seed, round, device, "codec")``.
        round_num: The round whose global model the update is relative to.
        clip_norm: Global L2 norm to clip to before encoding; 0 switches it off. It only saves quantizer range: the
            bound that counts is the server's own clip.

    Raises:
        DivergedError: The update holds NaN or Inf.
        SpecMismatch: The update is not of this spec.
    """
    delta = update.delta
    if clip_norm:
        check_finite(delta, f"round {round_num}")  # clipping would spread one NaN over every tensor
        delta = clip_by_norm(delta, clip_norm)
    loss = float(update.metrics.get("loss", float("nan")))
    return layout.pack(wire.Header(wire.UPDATE, round_num, round_num, update.num_examples, loss), delta, rng)
