"""``train.class-weights``: what the loss of each class is multiplied by, so that rare ones are learnt."""

from __future__ import annotations

import numpy as np

from device_sim.datasets import Dataset
from fl_mobile.errors import ConfigError
from fl_mobile.tasks.table import CLASSES, task_row

BALANCED = "balanced"
"""Rare classes count as much as frequent ones."""


def numbers_in(text: str) -> tuple[float, ...]:
    """Returns the numbers of the key's value; of ``balanced`` and of nothing none.

    Raises:
        ConfigError: It is something else.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text and text != BALANCED else ()
    except ValueError:
        raise ConfigError(
            f"train.class-weights must be {BALANCED}, or a number for each class parted by commas, e.g. 1,4.5;"
            f" got '{text}'"
        ) from None


def class_weights_of(text: str, dataset: Dataset, *, private: bool) -> tuple[float, ...]:
    """Returns what the key means for a dataset: a number for each class, or nothing.

    Balanced are ``examples / (classes · examples of the class)``, as scikit-learn has them: every device tells how many
    of each class it holds, and the server adds (`device_sim.federation.sums`); of a dataset without devices its own are
    counted. A class that nobody holds has 1. Positions that are padding do not count.

    Args:
        text: Value of ``train.class-weights``.
        private: Whether [privacy] is on.

    Raises:
        ConfigError: There is not one for each class, targets are no classes, or exact counts would have to be told.
    """
    if not text:
        return ()
    if dataset.heads:
        raise ConfigError(
            f"train.class-weights are of one target, {dataset.name} has {', '.join(h.name for h in dataset.heads)}:"
            " leave it out, and weigh examples (weight of an npz, data.weight-column of a csv)"
        )
    if task_row(dataset.task).kind != CLASSES:
        raise ConfigError(
            f"train.class-weights: targets of task '{dataset.task}' are {task_row(dataset.task).kind}, not classes;"
            " leave it out"
        )
    classes = dataset.num_classes
    if text != BALANCED:
        numbers = numbers_in(text)
        if len(numbers) != classes:
            raise ConfigError(f"train.class-weights has {len(numbers)} numbers, {dataset.name} has {classes} classes")
        return numbers
    if private:
        raise ConfigError(
            'train.class-weights = "balanced" needs exact counts of classes, which [privacy] does not account for: give'
            " numbers that anyone may know"
        )
    labels = dataset.train.y.reshape(-1)
    counts = np.array(dataset.class_counts or np.bincount(labels[labels >= 0], minlength=classes))
    return tuple(float(counts.sum() / (classes * count)) if count else 1.0 for count in counts)
