"""Every device's own examples in two: what it trains on, and what it is tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.client_data.data import DeviceData
from fl_mobile.seeds import rng_for
from fl_mobile.tasks import strata_of

Examples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SplitDevices:
    """`DeviceData` less a test part; which examples are held out hangs on the seed and the device alone.

    Attributes:
        data: All examples.
        seed: Of the experiment.
        fraction: Held out on every device, in (0, 1); a device keeps at least one example to train on.
    """

    data: DeviceData
    seed: int
    fraction: float

    @property
    def population(self) -> int:
        """Number of devices."""
        return self.data.population

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: examples each device trains on."""
        counts = self.data.counts(index)
        return counts - _held_out_counts(counts, self.fraction)

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``: one that holds any keeps one to train on."""
        return self.data.holds(index)

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``, of all a device's examples."""
        return self.data.majority_labels(index)

    def examples(self, device: int) -> Examples:
        """Returns what the device trains on."""
        x, y = self.data.examples(device)
        chosen = ~self._held_out(device, y)
        return x[chosen], y[chosen]

    def weights(self, device: int) -> np.ndarray | None:
        """Returns what each of those weighs, ``float32[n]``, or None."""
        weight = self.data.weights(device)
        return None if weight is None else weight[~self._held_out(device, self.data.examples(device)[1])]

    def held_out(self, device: int) -> Examples:
        """Returns what it is tested on; nothing if it has but one example."""
        x, y = self.data.examples(device)
        chosen = self._held_out(device, y)
        return x[chosen], y[chosen]

    def held_out_weights(self, device: int) -> np.ndarray | None:
        """Returns what each of those weighs, ``float32[n]``, or None."""
        weight = self.data.weights(device)
        return None if weight is None else weight[self._held_out(device, self.data.examples(device)[1])]

    def test_counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: examples each device is tested on."""
        return _held_out_counts(self.data.counts(index), self.fraction)

    def _held_out(self, device: int, y: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``, of all a device's examples."""
        count = int(_held_out_counts(np.array([len(y)]), self.fraction)[0])
        rng = rng_for(self.seed, device, "held-out")
        # Evenly spaced picks from the examples in order of class, shuffled within: as stratified as the numbers allow.
        order = np.lexsort((rng.permutation(len(y)), strata_of(y)))
        picks = order[((np.arange(count) + rng.uniform()) * len(y) / max(count, 1)).astype(np.int64)]
        return np.isin(np.arange(len(y)), picks)


def _held_out_counts(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Returns ``int64[n]``: at least one of two or more, and never all."""
    wanted = np.maximum(np.rint(counts * fraction), 1)
    return np.minimum(wanted, np.maximum(counts - 1, 0)).astype(np.int64)
