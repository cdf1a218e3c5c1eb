"""Seconds and bytes of local training from what the model costs, and whether a device can hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAIN_OVER_FORWARD = 3
"""Forward, gradient of the activations, gradient of the weights: three passes of the same products."""

FLOPS_PER_MAC = 2
RUNTIME_BYTES = 64 * 2**20
"""Runtime, graph and app beside the tensors: a round assumption."""


@dataclass(frozen=True)
class Workload:
    """What training one model costs, whatever the device.

    Attributes:
        forward_macs: Multiply-accumulates of one example's forward pass.
        parameters: Numbers in the weights.
        activations: Numbers one example's forward pass leaves for the backward pass.
        optimizer_slots: Numbers the local optimizer keeps per weight: 0 for SGD, 1 with momentum, 2 for Adam.
        frozen_macs: Of ``forward_macs``, those before the first layer that trains: no gradient goes through them.
    """

    forward_macs: int
    parameters: int
    activations: int
    optimizer_slots: int = 0
    frozen_macs: int = 0

    def flops(self, examples: np.ndarray, epochs: int) -> np.ndarray:
        """Returns ``float64[n]``: operations of one device's local training.

        Three times the forward pass (Hobbhahn and Sevilla, "What's the backward-forward FLOP ratio for neural
        networks?", Epoch 2021: 2 to 1 for one backward to one forward; FedScale, ICML 2022, takes the same 3).
        """
        macs = TRAIN_OVER_FORWARD * (self.forward_macs - self.frozen_macs) + self.frozen_macs
        return FLOPS_PER_MAC * float(macs) * np.asarray(examples) * epochs

    def ram_bytes(self, batch_size: int) -> int:
        """Returns an estimate: float32 weights, gradients, slots, and activations with their gradients."""
        per_weight = 2 + self.optimizer_slots
        return RUNTIME_BYTES + 4 * (per_weight * self.parameters + 2 * self.activations * batch_size)


def train_seconds(flops: np.ndarray, train_flops_per_s: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]``: operations over speed."""
    seconds: np.ndarray = np.asarray(flops, np.float64) / np.asarray(train_flops_per_s)
    return seconds


def fits_ram(needed_bytes: float, ram_bytes: np.ndarray, ram_share: float) -> np.ndarray:
    """Returns ``bool[n]``: which devices let training have so much of their memory."""
    fits: np.ndarray = needed_bytes <= np.asarray(ram_bytes) * ram_share
    return fits
