"""Classes that nobody can teach: no device holds an example of them."""

from __future__ import annotations

import numpy as np

from device_sim.datasets import Dataset
from fl_mobile.tasks.table import CLASSIFICATION

_OF_NAMED_CLASSES = (CLASSIFICATION, "segmentation")
_MOST = 5


def unheld_classes(dataset: Dataset) -> str:
    """Returns which classes no device holds, in a line; empty where all are held, or classes are a vocabulary's tokens.

    >>> from device_sim.datasets import load_dataset
    >>> unheld_classes(load_dataset("synthetic", seed=0))
    ''
    """
    labels = {"": dataset.labels, **(dict(dataset.ends.labels) if dataset.ends else {})}
    targets = {"": dataset.train.y, **dataset.told(dataset.train.y)}
    tasks = {"": dataset.task, **{head.name: head.task for head in dataset.heads}}
    none = [
        f"{name}: {names[number]}" if name else names[number]
        for name, names in labels.items()
        if tasks[name] in _OF_NAMED_CLASSES
        for number in sorted(set(range(len(names))) - set(np.unique(targets[name]).tolist()))
    ]
    more = f" and {len(none) - _MOST} more" if len(none) > _MOST else ""
    return f"no device holds class {', '.join(none[:_MOST])}{more}: nothing can learn it" if none else ""
