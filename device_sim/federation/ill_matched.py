"""Codecs that a server can read, but learns less from than from others: what `simulate` says before round 1."""

from __future__ import annotations

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.codecs import Codec, is_sparse
from fl_mobile.codecs.choice import CLIPPED
from fl_mobile.codecs.ecsq import Ecsq


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
