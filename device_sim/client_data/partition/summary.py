"""How uneven a partition is, in numbers for tables and reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PartitionSummary:
    """Sizes and label skew of a partition. Averages are over devices that hold examples.

    Attributes:
        examples_min, examples_median, examples_max: Per device.
        classes_per_device_mean: Classes with at least one example.
        label_skew_mean: Total-variation distance of a device's class mixture to the whole, 0 (equal) to 1 (disjoint).
        label_skew_if_iid: The same sizes with the classes shuffled (one fixed shuffle): small devices are
            never even, so only what exceeds this is skew.
        examples_per_device: In device order.
    """

    devices: int
    empty_devices: int
    examples: int
    examples_min: int
    examples_median: float
    examples_max: int
    classes_per_device_mean: float
    label_skew_mean: float
    label_skew_if_iid: float
    examples_per_device: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def label_counts(y: np.ndarray, parts: list[np.ndarray], num_classes: int) -> np.ndarray:
    """Returns ``int64[devices, num_classes]``: examples of each class on each device."""
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    cells = owner * num_classes + y[np.concatenate(parts)]
    return np.bincount(cells, minlength=len(parts) * num_classes).reshape(len(parts), num_classes)


def summarize(y: np.ndarray, parts: list[np.ndarray], num_classes: int) -> PartitionSummary:
    """Returns the numbers of a partition made by `partition`."""
    counts = label_counts(y, parts, num_classes)
    sizes = counts.sum(axis=1)
    shuffled = np.random.default_rng(0).permutation(y)
    return PartitionSummary(
        devices=len(parts),
        empty_devices=int((sizes == 0).sum()),
        examples=int(sizes.sum()),
        examples_min=int(sizes.min()),
        examples_median=float(np.median(sizes)),
        examples_max=int(sizes.max()),
        classes_per_device_mean=float((counts[sizes > 0] > 0).sum(axis=1).mean()),
        label_skew_mean=_mean_skew(counts),
        label_skew_if_iid=_mean_skew(label_counts(shuffled, parts, num_classes)),
        examples_per_device=tuple(sizes.tolist()),
    )


def _mean_skew(counts: np.ndarray) -> float:
    held = counts[counts.any(axis=1)]
    mixtures = held / held.sum(axis=1, keepdims=True)
    overall = counts.sum(axis=0) / counts.sum()
    return float(np.abs(mixtures - overall).sum(axis=1).mean() / 2)
