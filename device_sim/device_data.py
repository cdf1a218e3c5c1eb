"""What each device holds: examples dealt out of a dataset, or made when a device is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from device_sim.datasets import Samples


class DeviceData(Protocol):
    """Devices 0 to ``population`` − 1 and their examples."""

    @property
    def population(self) -> int: ...

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: how many examples each device at ``index`` ``int64[n]`` holds."""
        ...

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: the class each device has most examples of; −1 where it has none."""
        ...

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a device's examples ``[n, …]`` and labels ``int64[n]``."""
        ...


@dataclass(frozen=True)
class DealtData:
    """Examples of one dataset, each on exactly one device.

    Attributes:
        train: All of them.
        shards: For each device the rising indices of its own.
    """

    train: Samples
    shards: tuple[np.ndarray, ...]

    @property
    def population(self) -> int:
        """Number of devices."""
        return len(self.shards)

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        return np.array([len(self.shards[device]) for device in index.tolist()], np.int64)

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        held = (self.train.y[self.shards[device]] for device in index.tolist())
        return np.array([np.bincount(labels).argmax() if len(labels) else -1 for labels in held], np.int64)

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the device's examples and labels."""
        rows = self.shards[device]
        return self.train.x[rows], self.train.y[rows]
