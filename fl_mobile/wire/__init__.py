"""What travels: packets in either direction, and delta downloads on a lattice."""

from fl_mobile.wire.packet import (
    MODEL,
    MODEL_DELTA,
    MODEL_SUMS,
    OVERHEAD_BYTES,
    UPDATE,
    Header,
    Layout,
    Packet,
    kind_of,
    pack,
    unpack,
)

__all__ = [
    "MODEL",
    "MODEL_DELTA",
    "MODEL_SUMS",
    "OVERHEAD_BYTES",
    "UPDATE",
    "Header",
    "Layout",
    "Packet",
    "kind_of",
    "pack",
    "unpack",
]
