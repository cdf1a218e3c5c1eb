"""Rules that look at single coordinates, of packets in which most coordinates are zero."""

from __future__ import annotations

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.codecs import is_sparse


def zero_middle(aggregation: str, codec: str) -> str:
    """Returns that a rule may learn nothing of such packets, in a line; empty where it may.

    >>> zero_middle("multi-krum", "ecsq"), zero_middle("median", "q8")
    ('', '')
    >>> zero_middle("median", "ecsq")[:57]
    "server.aggregation 'median' leaves out the ends of every "

    Args:
        aggregation: Row of `AGGREGATORS`.
        codec: Text of the codec of uploads.
    """
    if not (AGGREGATORS[aggregation].by_coordinate and is_sparse(codec)):
        return ""
    return (
        f"server.aggregation '{aggregation}' leaves out the ends of every coordinate, and in packets of '{codec}' most"
        " coordinates are zero: the model may stand still. Take upload.codec q8, or multi-krum, which compares whole"
        " updates"
    )
