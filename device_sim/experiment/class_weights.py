"""``train.class-weights``: what the loss of each class is multiplied by, so that rare ones are learnt."""

from __future__ import annotations

import numpy as np

from device_sim.datasets import Dataset
from fl_mobile.client.sums import end_to_end
from fl_mobile.errors import ConfigError
from fl_mobile.tasks.table import CLASSES, classes_by_head, task_row

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
    counted. A class that nobody holds has 1. Positions that are padding do not count. Each head is balanced by itself.

    Args:
        text: Value of ``train.class-weights``.
        private: Whether [privacy] is on.

    Raises:
        ConfigError: There is not one for each class, targets are no classes, or exact counts would have to be told.
    """
    if not text:
        return ()
    sizes = class_sizes(dataset)
    if not sizes:
        kinds = " and ".join(dict.fromkeys(task_row(h.task).kind for h in dataset.heads)) or task_row(dataset.task).kind
        raise ConfigError(
            f"train.class-weights: targets of task '{dataset.task.partition('(')[0]}' are {kinds}, not classes;"
            " leave it out"
        )
    if text != BALANCED:
        numbers = numbers_in(text)
        if len(numbers) != sum(sizes.values()):
            heads = f" ({', '.join(f'{n} {k}' for n, k in sizes.items())}, in this order)" if dataset.heads else ""
            raise ConfigError(
                f"train.class-weights has {len(numbers)} numbers, {dataset.name} has {sum(sizes.values())}"
                f" classes{heads}"
            )
        return numbers
    if private:
        raise ConfigError(
            'train.class-weights = "balanced" needs exact counts of classes, which [privacy] does not account for: give'
            " numbers that anyone may know"
        )
    counts, found = np.array(dataset.class_counts), list[float]()
    if not dataset.class_counts:
        counts = np.bincount(class_numbers(dataset, dataset.train.y), minlength=sum(sizes.values()))
    for part in np.split(counts, np.cumsum(list(sizes.values()))[:-1]):
        found += [float(part.sum() / (len(part) * count)) if count else 1.0 for count in part]
    return tuple(found)


def class_sizes(dataset: Dataset) -> dict[str, int]:
    """Returns how many classes the target has, or each head that tells classes; nothing where none are told.

    Counts and weights of several heads lie end to end in this order.
    """
    if dataset.heads:
        return classes_by_head(dataset.heads)
    return {"": dataset.num_classes} if task_row(dataset.task).kind == CLASSES else {}


def class_numbers(dataset: Dataset, y: np.ndarray) -> np.ndarray:
    """Returns the classes in targets, ``int64[…]``: no padding, those of a head behind those of the heads before."""
    told = dataset.told(y) if dataset.heads else {"": y}
    return end_to_end((told[name], classes) for name, classes in class_sizes(dataset).items())
