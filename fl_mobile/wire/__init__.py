"""What travels: packets in either direction, and delta downloads on a lattice."""

from fl_mobile.wire.packet import MODEL, MODEL_DELTA, OVERHEAD_BYTES, UPDATE, Header, Layout, Packet, pack, unpack

__all__ = ["MODEL", "MODEL_DELTA", "OVERHEAD_BYTES", "UPDATE", "Header", "Layout", "Packet", "pack", "unpack"]
