"""A client that sends no honest packet: noise, a part of one, a damaged one, or noise that passes every checksum."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from device_sim.attacks.base import Attack, Setting
from fl_mobile.parameters import NoParameters

_HEADER_BYTES = 40


def garbage(_: NoParameters, setting: Setting) -> Attack:
    """Returns the attack."""
    return Attack(packet=garbled)


def garbled(packet: bytes, rng: np.random.Generator) -> bytes:
    """Returns one of four things that are not the packet."""
    form = int(rng.integers(4))
    if form == 0:
        return rng.bytes(len(packet))
    if form == 1:
        return packet[: int(rng.integers(len(packet)))]
    if form == 2:
        at = int(rng.integers(len(packet)))
        return packet[:at] + bytes([packet[at] ^ (1 << int(rng.integers(8)))]) + packet[at + 1 :]
    body = packet[:_HEADER_BYTES] + rng.bytes(len(packet) - _HEADER_BYTES - 4)
    return body + struct.pack("<I", zlib.crc32(body))
