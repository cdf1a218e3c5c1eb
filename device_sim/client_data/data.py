"""What each device holds: examples dealt out of a dataset, or made when a device is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from device_sim.datasets import Samples
from device_sim.datasets.records import DataOptions
from device_sim.datasets.synthetic import CLASSES, SHAPE, draw_examples, draw_patterns
from fl_mobile.seeds import rng_for
from fl_mobile.tasks import strata_of


class DeviceData(Protocol):
    """Devices 0 to ``population`` − 1 and their examples."""

    @property
    def population(self) -> int: ...

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: how many examples each device at ``index`` ``int64[n]`` holds."""
        ...

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``: whether each device holds any, without asking it how many."""
        ...

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``: the class each device has most examples of; −1 where it has none."""
        ...

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a device's examples ``[n, …]`` and targets ``[n, …]``."""
        ...

    def weights(self, device: int) -> np.ndarray | None:
        """Returns what each of them weighs, ``float32[n]``; None where data has no weights."""
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
        return self._counts[index]

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.array([len(shard) for shard in self.shards], np.int64)

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``."""
        return self.counts(index) > 0

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        strata = strata_of(self.train.y)
        held = (strata[self.shards[device]] for device in index.tolist())
        return np.array([np.bincount(labels).argmax() if len(labels) else -1 for labels in held], np.int64)

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the device's examples and labels."""
        rows = self.shards[device]
        return self.train.x.take(rows, axis=0), self.train.y[rows]

    def weights(self, device: int) -> np.ndarray | None:
        """Returns ``float32[n]``, or None."""
        return None if self.train.weight is None else self.train.weight[self.shards[device]]


@dataclass(frozen=True)
class MadeData:
    """Pictures that are made when a device is asked, the same ones every time: a population costs nothing.

    Attributes:
        pattern: `synthetic.draw_patterns`: what each class looks like.
        alpha: Every device has classes in proportions of its own, drawn from Dir(alpha).
    """

    seed: int
    population: int
    examples_per_device: int
    pattern: np.ndarray
    alpha: float

    def counts(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        return np.full(len(index), self.examples_per_device, np.int64)

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``."""
        return self.counts(index) > 0

    def majority_labels(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]``."""
        return np.array([np.bincount(self._labels(device)[1]).argmax() for device in index.tolist()], np.int64)

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the device's examples and labels."""
        rng, y = self._labels(device)
        return draw_examples(self.pattern, y, rng), y

    def weights(self, device: int) -> None:
        """Returns None."""

    def _labels(self, device: int) -> tuple[np.random.Generator, np.ndarray]:
        rng = rng_for(self.seed, device, "made")
        shares = rng.dirichlet(np.full(len(self.pattern), self.alpha))
        return rng, rng.choice(len(shares), self.examples_per_device, p=shares)


def made_data(seed: int, population: int, keys: DataOptions, examples_per_device: int, alpha: float) -> MadeData:
    """Returns devices whose pictures show the patterns of dataset ``synthetic`` with the same options."""
    shape, classes, count = keys.shape or SHAPE, keys.classes or CLASSES, keys.examples or 1000
    rng = rng_for(seed, "synthetic", count, classes, *shape)
    rng.permutation(count)  # where the dataset draws its labels
    return MadeData(
        seed=seed,
        population=population,
        examples_per_device=examples_per_device,
        pattern=draw_patterns(rng, classes, shape),
        alpha=alpha,
    )
