"""The partitioners by name, and the one function that deals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device_sim.client_data.partition.assign import Deal, dirichlet, iid, natural, quantity_skew, shards
from fl_mobile.errors import ConfigError, DataError, check_known
from fl_mobile.table import Table, defined_at


@dataclass(frozen=True)
class PartitionRow:
    """A way to deal examples to devices; ``reads`` names the knobs it uses."""

    assign: Callable[[Deal], np.ndarray]
    summary: str
    paper: str
    reads: tuple[str, ...] = ()


PARTITIONERS: Table[PartitionRow] = Table(
    "partition",
    PartitionRow,
    {
        "iid": PartitionRow(iid, "random and even", "McMahan et al. 2017"),
        "dirichlet": PartitionRow(
            dirichlet,
            "label skew: per class, device shares from Dir(alpha)",
            "Yurochkin et al. 2019; Li et al. 2021",
            ("alpha", "min_examples"),
        ),
        "shards": PartitionRow(
            shards,
            "pathological label skew: a few label-sorted slices per device",
            "McMahan et al. 2017",
            ("shards_per_device",),
        ),
        "quantity-skew": PartitionRow(
            quantity_skew,
            "log-normal device sizes, classes at random; alpha is the spread of ln(size)",
            "Caldas et al. 2018",
            ("alpha", "min_examples"),
        ),
        "natural": PartitionRow(
            natural, "as the data came: writers, folders, users", "Caldas et al. 2018", ("device_of",)
        ),
    },
)


def partition(
    name: str,
    y: np.ndarray,
    devices: int,
    rng: np.random.Generator,
    *,
    alpha: float = 0.3,
    shards_per_device: int = 2,
    device_of: np.ndarray | None = None,
    min_examples: int = 1,
) -> list[np.ndarray]:
    """Returns, for each device, the rising ``int64`` indices of its examples; each example is on exactly one device.

    Args:
        y: ``int64[n]`` classes.
        rng: The same generator state gives the same partition.
        min_examples: No device holds fewer. 0 allows empty devices.

    Raises:
        ConfigError: Unknown name, or a value out of range.
        DataError: Fewer examples than ``devices * min_examples``, or a partition that leaves a device short.

    >>> [part.tolist() for part in partition("shards", np.array([1, 0, 1, 0]), 2, np.random.default_rng(0),
    ...                                      shards_per_device=1)]
    [[0, 2], [1, 3]]
    """
    check_known("partition", name, PARTITIONERS)
    row = PARTITIONERS[name]
    _check(count=len(y), devices=devices, alpha=alpha, shards_per_device=shards_per_device, min_examples=min_examples)
    owner = row.assign(
        Deal(
            y=y,
            devices=devices,
            rng=rng,
            alpha=alpha,
            shards_per_device=shards_per_device,
            device_of=device_of,
            min_examples=min_examples,
        )
    )
    if np.shape(owner) != np.shape(y)[:1]:
        found = f"got shape {np.shape(owner)}{defined_at(name)}"
        raise ConfigError(f"{name}: expected a device for each of {len(y)} examples, {found}.")
    counts = np.bincount(owner, minlength=devices)
    if counts.min() < min_examples:
        raise DataError(
            f"{name}: device {counts.argmin()} has {counts.min()} examples, min-examples is {min_examples}. "
            "Lower min-examples or devices, or choose another partition."
        )
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])


def _check(count: int, devices: int, alpha: float, shards_per_device: int, min_examples: int) -> None:
    for name, value in (("devices", devices), ("shards-per-device", shards_per_device)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}.")
    if not 1e-3 <= alpha <= 1e6:  # beyond, float64 shares degenerate to 0 or to exactly even
        raise ConfigError(f"alpha: expected a number from 0.001 to 1000000, got {alpha}.")
    if min_examples < 0:
        raise ConfigError(f"min-examples: expected at least 0, got {min_examples}.")
    if count < devices * min_examples or not count:
        raise DataError(
            f"{count} examples cannot give {devices} devices {min_examples} each. "
            "Lower devices or min-examples, or take a larger dataset."
        )
