"""Shuffling and holding out: seeded, stratified by class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from device_sim.datasets.records import Dataset, Ends, LoadRequest, Samples, check_targets, make_dataset
from fl_mobile.errors import DataError
from fl_mobile.seeds import rng_for
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tasks.targets import strata_of


def held_out(
    y: np.ndarray, fraction: float, rng: np.random.Generator, device_of: np.ndarray | None = None
) -> np.ndarray:
    """Returns ``bool[n]``: True where an example is held out for testing.

    Per class ``round(fraction * count)`` examples, but never all of them. With ``device_of`` a device that would
    be left without training data gets one example back.

    Raises:
        DataError: So few examples per class that nothing can be held out.
    """
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        count = min(round(fraction * len(members)), len(members) - 1)
        test[members[:count]] = True
    if device_of is not None:
        test[_first_of_those_without(device_of, test)] = False
    if not test.any():
        counts = np.unique(y, return_counts=True)[1]
        raise DataError(
            f"Nothing to hold out: {fraction:g} of each class's examples rounds to none "
            f"({len(y)} examples, {counts.min()} to {counts.max()} per class). Add examples or raise test-fraction"
            + ('; if the targets are measures, task.name = "regression".' if len(counts) > 2 else ".")
        )
    return test


def _first_of_those_without(device_of: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Returns ``int64[m]``: the first example of every device of whose examples all are ``taken`` ``bool[n]``."""
    without = np.flatnonzero(~np.isin(device_of, device_of[~taken]))
    _, first = np.unique(device_of[without], return_index=True)
    found: np.ndarray = without[first]
    return found


def split_dataset(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    labels: tuple[str, ...],
    request: LoadRequest,
    *,
    source: str,
    device_of: np.ndarray | None = None,
    task: str = CLASSIFICATION,
    why: str = "the dataset has classes",
    ends: Ends | None = None,
    held: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Dataset:
    """Returns ``x, y`` shuffled and split per stratum by ``request.seed``; the same seed gives the same split.

    ``held`` ``bool[n]`` says which are held out where chance must not: neighbours of a training example.
    """
    samples = Samples(x, y, weight)
    check_targets(name, task, samples.y, labels)  # a mistake in the data must not surface as one of the split
    rng = rng_for(request.seed, "dataset-split", name)
    test = held_out(strata_of(y), request.test_fraction, rng, device_of) if held is None else held
    order = rng.permutation(len(y))
    train_rows, test_rows = order[~test[order]], order[test[order]]
    return make_dataset(
        name,
        samples.at(train_rows),
        samples.at(test_rows),
        labels,
        source=source,
        device_of=None if device_of is None else device_of[train_rows],
        task=task,
        why=why,
        ends=ends,
    )


def with_public(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Returns the dataset with ``count`` training examples set aside, the same share of each class.

    A device that the data knows keeps at least one; a few less are set aside then.

    Raises:
        DataError: There are not twice as many.
    """
    train = dataset.train
    if not 2 * count <= len(train):
        raise DataError(
            f"{dataset.name} has {len(train)} training examples: not enough to set {count} aside for the server's own"
            " update (server.public-examples); give it fewer than half of them."
        )
    rng, taken = rng_for(seed, "public-examples"), np.zeros(len(train), bool)
    by_class = np.lexsort((rng.permutation(len(train)), strata_of(train.y)))  # shuffled within each class
    taken[by_class[((np.arange(count) + rng.uniform()) * len(train) / count).astype(np.int64)]] = True
    if dataset.device_of is not None:
        taken[_first_of_those_without(dataset.device_of, taken)] = False
    return replace(
        dataset,
        train=train.at(~taken),
        device_of=None if dataset.device_of is None else dataset.device_of[~taken],
        public=train.at(taken),
    )
