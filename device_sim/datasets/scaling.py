"""Standardisation by federated sums: every device sends counts, sums and squares of its features, and nothing else.

```
device: [n, Σx, Σx², Σy, Σy²] float64 ─┐
device: …                              ├─▶ sum ─▶ mean, spread ─▶ into the graph (features), around the loss (targets)
device: …                             ─┘
```
Adding the sums of devices and adding all examples is the same, so it is done at once here. What each device would send
is `message_bytes` long. Under [privacy] nothing of it is done: the sums are exact, and no noise is accounted for them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from device_sim.datasets.records import Dataset, Samples, Scaling
from fl_mobile.errors import ConfigError
from fl_mobile.tasks.table import NUMBERS, RECONSTRUCTION, task_row

AUTO, FEDERATED, NONE = "auto", "federated", "none"
STANDARDIZE = (AUTO, FEDERATED, NONE)


def standardised(dataset: Dataset, how: str, *, table: bool, private: bool) -> Dataset:
    """Returns the dataset with its scaling known and its numbers to be told in units of it.

    Args:
        dataset: Examples of devices and of the test set.
        how: Row of `STANDARDIZE`; ``"auto"`` does it for tables.
        table: Whether the dataset is one of named columns.
        private: Whether [privacy] is on.

    Raises:
        ConfigError: It was asked for and cannot be.
    """
    if how == NONE or (how == AUTO and (not table or private)):
        return dataset
    if private:
        raise ConfigError(
            'data.standardize = "federated" sends exact sums, which [privacy] does not account for: scale features by'
            ' values that anyone may know, and set data.standardize = "none"'
        )
    if dataset.ends is not None:
        raise ConfigError(
            'data.standardize = "federated" is for one input and one target: scale several before they are saved, or'
            " put a Normalization layer with known values into the model"
        )
    if dataset.train.x.dtype != np.float32 or dataset.train.x.ndim != 2:
        raise ConfigError(
            f'data.standardize = "federated" needs rows of numbers, {dataset.name} holds {dataset.train.x.dtype}'
            f"{list(dataset.train.x.shape[1:])}; a model of pictures scales them itself"
        )
    mean, spread = _moments(dataset.train.x)
    numbers = task_row(dataset.task).kind == NUMBERS
    told, unit = _moments(dataset.train.y.reshape(len(dataset.train), -1)) if numbers else (np.zeros(0), np.zeros(0))
    source = f"federated sums, {message_bytes(dataset)} bytes of each device"
    scaling = Scaling(mean=mean, spread=spread, target_mean=told, target_spread=unit, source=source)
    if not numbers:
        return replace(dataset, scaling=scaling)
    train, test = (_scaled(part, told, unit) for part in (dataset.train, dataset.test))
    return replace(dataset, scaling=scaling, train=train, test=test)


def message_bytes(dataset: Dataset) -> int:
    """Returns the length of what one device sends."""
    targets = dataset.train.y[:1].size if task_row(dataset.task).kind == NUMBERS else 0
    return 8 * (1 + 2 * (dataset.train.x[:1].size + (0 if dataset.task == RECONSTRUCTION else targets)))


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of every column, from sums; 1 for the spread of one that never changes."""
    exact = values.astype(np.float64)
    mean = exact.sum(axis=0) / len(exact)
    variance = np.maximum(np.square(exact).sum(axis=0) / len(exact) - np.square(mean), 0.0)
    still = variance <= 1e-12 * np.square(mean)
    return mean, np.where(still, 1.0, np.sqrt(np.where(still, 1.0, variance)))


def _scaled(part: Samples, mean: np.ndarray, spread: np.ndarray) -> Samples:
    return Samples(part.x, ((part.y - mean) / spread).astype(np.float32))
