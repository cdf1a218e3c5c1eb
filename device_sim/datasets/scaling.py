"""Standardisation of features and of numbers to be told: by public constants, or by sums that devices send.

```
device: [n, Σx, Σx², of features and numbers] ─ packet ─┐
device: …                                               ├─▶ sum ─▶ mean, spread ─▶ into the graph (features),
device: …                                               ┘                          around the loss (numbers)
```
Who sends what, and what of it is noised, is `device_sim.federation.sums`; here is what is done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from device_sim.datasets.records import Dataset, Samples, Scaling
from fl_mobile.errors import ConfigError, nearest
from fl_mobile.tasks.table import NUMBERS, RECONSTRUCTION, task_row
from fl_mobile.tasks.targets import standardised

AUTO, PUBLIC, FEDERATED, NONE = "auto", "public", "federated", "none"
STANDARDIZE = (AUTO, PUBLIC, FEDERATED, NONE)


def check_can_be_standardised(dataset: Dataset, how: str) -> None:
    """Raises `ConfigError` for a dataset without rows of numbers."""
    if dataset.ports:
        if not any(port.is_row for port in dataset.ports) or dataset.task == RECONSTRUCTION:
            raise ConfigError(
                f'data.standardize = "{how}" needs an input that is a row of numbers and targets beside the inputs,'
                f" {dataset.name} has {', '.join(port.text for port in dataset.ports)}"
            )
        return
    if dataset.train.x.dtype != np.float32 or dataset.train.x.ndim != 2:
        raise ConfigError(
            f'data.standardize = "{how}" needs rows of numbers, {dataset.name} holds {dataset.train.x.dtype}'
            f"{list(dataset.train.x.shape[1:])}; a model of pictures scales them itself"
        )


def column_names(dataset: Dataset) -> tuple[str, ...]:
    """Returns what `rows_of` holds, by name: features, then the numbers that are told; each name is one column's."""
    columns = feature_names(dataset)
    told = _numbers_told(dataset)
    named = len(dataset.labels) == told and not set(dataset.labels) & set(columns)
    labels = dataset.labels if named else tuple(f"y{number}" for number in range(told))
    return (*columns, *labels)


def feature_names(dataset: Dataset) -> tuple[str, ...]:
    """Returns the features by name; of several inputs those of rows of numbers, ``<input>.<number>``."""
    if dataset.ports:
        return tuple(f"{port.name}.{number}" for port in dataset.ports if port.is_row for number in range(port.size))
    return dataset.columns or tuple(str(number) for number in range(dataset.train.x.shape[1]))


def rows_of(dataset: Dataset, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns ``float32[n, columns]`` of a device: features, and beside them the numbers that are told."""
    if dataset.ports:
        inputs = dataset.inputs(x)
        x = np.hstack([inputs[port.name] for port in dataset.ports if port.is_row])
    return np.hstack([x, y.reshape(len(y), -1)]) if _numbers_told(dataset) else x


def with_scaling(dataset: Dataset, mean: np.ndarray, spread: np.ndarray, source: str, upload_bytes: int = 0) -> Dataset:
    """Returns the dataset with its scaling known and its numbers to be told in units of it.

    Args:
        mean: ``float64[columns]``, as `column_names`.
        spread: Their standard deviations.
    """
    features = len(feature_names(dataset))
    numbers = task_row(dataset.task).kind == NUMBERS
    told = slice(0, features) if dataset.task == RECONSTRUCTION else slice(features, None)
    scaling = Scaling(
        mean=mean[:features],
        spread=spread[:features],
        target_mean=mean[told] if numbers else np.zeros(0),
        target_spread=spread[told] if numbers else np.zeros(0),
        source=source,
    )
    dataset = replace(dataset, scaling=scaling, statistics_bytes=upload_bytes)
    if not numbers:
        return dataset
    train, test = (_scaled(part, scaling) for part in (dataset.train, dataset.test))
    public = None if dataset.public is None else _scaled(dataset.public, scaling)
    return replace(dataset, train=train, test=test, public=public)


def written(dataset: Dataset, mean: np.ndarray, spread: np.ndarray) -> tuple[str, ...]:
    """Returns constants as ``data.scaling`` has them: ``column=mean:spread``, to the bit."""
    pairs = zip(column_names(dataset), mean.tolist(), spread.tolist(), strict=True)
    return tuple(f"{name}={m!r}:{s!r}" for name, m, s in pairs)


def pairs_of(key: str, given: Sequence[str], dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two numbers of every column, ``float64[columns]`` each, from ``column=a:b``; ``a:b`` is of the rest.

    Args:
        key: That they were given by, for messages.

    Raises:
        ConfigError: A text is none, a column is unknown, or one has none.
    """
    names, found, rest = column_names(dataset), dict[str, tuple[float, float]](), None
    for text in given:
        name, is_named, pair = text.rpartition("=")
        first, _, second = pair.partition(":")
        try:
            numbers = float(first), float(second)
        except ValueError:
            numbers = np.nan, np.nan
        if not np.isfinite(numbers).all():
            raise ConfigError(f"{key}: expected column=number:number, e.g. {names[0]}=0:1, got '{text}'")
        if not is_named:
            rest = numbers
        elif name not in names:
            raise ConfigError(f"{key}: {dataset.name} has no column '{name}'.{nearest(name, names)}")
        else:
            found[name] = numbers
    if missing := [name for name in names if name not in found and rest is None]:
        raise ConfigError(f"{key}: two numbers are missing of column '{missing[0]}' and {len(missing) - 1} more")
    both = np.array([found.get(name, rest) for name in names], np.float64)
    return both[:, 0], both[:, 1]


def _numbers_told(dataset: Dataset) -> int:
    """Returns how many numbers a target holds that are not the features themselves."""
    if task_row(dataset.task).kind != NUMBERS or dataset.task == RECONSTRUCTION:
        return 0
    return int(dataset.train.y[:1].size)


def _scaled(part: Samples, scaling: Scaling) -> Samples:
    return replace(part, y=standardised(part.y, scaling.target_mean, scaling.target_spread))
