"""Joules: watts times seconds for computing, and what the radio takes for bytes, for time on air and for its tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS_PER_MEGABIT = 1e6


@dataclass(frozen=True)
class Radio:
    """What one kind of radio draws, above an idle device: power is ``slope * throughput + base``.

    Attributes:
        down_joules_per_megabit: Slope of receiving; watts per Mbit/s are joules per Mbit.
        up_joules_per_megabit: Slope of sending.
        base_watts: For as long as the transfer lasts.
        tail_joules: After a transfer, while the radio waits for more before it sleeps.
    """

    down_joules_per_megabit: float
    up_joules_per_megabit: float
    base_watts: float
    tail_joules: float


@dataclass(frozen=True)
class RadioColumns:
    """`Radio` of many devices, ``float64[n]`` each."""

    down_joules_per_megabit: np.ndarray
    up_joules_per_megabit: np.ndarray
    base_watts: np.ndarray
    tail_joules: np.ndarray


def train_joules(train_watts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]``: what training for so long takes from the batteries."""
    joules: np.ndarray = np.asarray(train_watts) * seconds
    return joules


def radio_joules(
    joules_per_megabit: np.ndarray, radio: RadioColumns, packet_bytes: np.ndarray | int, seconds: np.ndarray
) -> np.ndarray:
    """Returns ``float64[n]``: what one transfer takes; a transfer of no bytes does not wake the radio.

    Args:
        joules_per_megabit: Of ``radio``, the slope of the transfer's direction.
        packet_bytes: Sent or received, ``int64[n]``.
        seconds: On air, ``float64[n]``.
    """
    megabits = np.asarray(packet_bytes) * 8 / BITS_PER_MEGABIT
    awake = joules_per_megabit * megabits + radio.base_watts * seconds + radio.tail_joules
    joules: np.ndarray = np.where(megabits > 0, awake, 0.0)
    return joules
