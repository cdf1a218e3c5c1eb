"""Codecs that a server can read, but learns less from than from others: what `simulate` says before round 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.codecs import Codec, is_sparse
from fl_mobile.codecs.choice import CLIPPED
from fl_mobile.codecs.ecsq import Ecsq

EVEN = 0.5
"""Where so large a part of the devices, were they of one size, would make as good a mean, sizes are much alike."""

MOST_COUNTED = 10_000
"""Devices; of more the first are looked at."""


def ill_matched(aggregation: str, codec: Codec, *, clipped: bool) -> str:
    """Returns why the rule or the clip may learn little of such packets, in a line; empty where there is no reason.

    >>> rdo = Ecsq(rounding="rdo")
    >>> ill_matched("multi-krum", Ecsq(), clipped=False), ill_matched("mean", rdo, clipped=True)
    ('', '')
    >>> ill_matched("median", Ecsq(), clipped=False)[:57]
    "server.aggregation 'median' leaves out the ends of every "
    >>> ill_matched("mean", Ecsq(), clipped=True)[:34]
    "upload.codec 'ecsq' rounds at rand"

    Args:
        aggregation: Row of `AGGREGATORS`.
        codec: Of uploads.
        clipped: Whether every decoded update is clipped, as under central privacy.
    """
    if AGGREGATORS[aggregation].by_coordinate and is_sparse(codec.name):
        return (
            f"server.aggregation '{aggregation}' leaves out the ends of every coordinate, and in packets of"
            f" '{codec.name}' most coordinates are zero: the model may stand still. Take upload.codec q8, or"
            " multi-krum, which compares whole updates"
        )
    if clipped and isinstance(codec, Ecsq) and codec.rounding == "stochastic":
        return (
            f"upload.codec '{codec.name}' rounds at random, which makes an update longer, and the server clips it"
            f" again: upload.codec auto, which is {CLIPPED.name} here, loses less (docs/privacy.md)"
        )
    return ""


def uneven(codec: Codec, counts: np.ndarray) -> str:
    """Returns a codec that loses less where devices differ much in size and weigh as much, in a line; else empty.

    >>> uneven(Ecsq(), np.array([20, 30, 40])), uneven(Ecsq(examples=9), np.array([1, 1, 100]))
    ('', '')

    Args:
        codec: Of uploads.
        counts: ``int[n]``: examples of each device.
    """
    held = counts[counts > 0].astype(np.float64)
    if not isinstance(codec, Ecsq) or codec.examples or held.sum() ** 2 >= EVEN * len(held) * np.square(held).sum():
        return ""
    instead = replace(codec, examples=max(1, round(float(np.median(held)))))
    return (
        f"devices hold {held.min():,.0f} to {held.max():,.0f} examples and weigh as much: upload.codec {instead.name}"
        " loses less in the same bytes (docs/compression.md)"
    )
