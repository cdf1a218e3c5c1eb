"""Federated statistics: what devices send before round 1 so that scaling, vocabulary and class weights are known.

```
every device ─ its rows ─▶ fl_mobile.client.sums ─ packet ─▶ fl_mobile.server.sums ─▶ mean, spread
[privacy]: devices drawn in secret ─ means within data.ranges, clipped ─▶ sum + noise ─▶ data.scaling of the run
```
Nothing else of what devices hold is looked at. Under [privacy] it is one more round of the same mechanism, drawn,
clipped and noised as one, and the ledger books it as one. What it released is written into the run's experiment: a run
that goes on, and whoever opens it later, reads it there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from device_sim.client_data.data import DeviceData
from device_sim.datasets.records import WORDS, Dataset
from device_sim.datasets.scaling import (
    AUTO,
    FEDERATED,
    NONE,
    PUBLIC,
    check_can_be_standardised,
    pairs_of,
    rows_of,
    with_scaling,
    written,
)
from device_sim.datasets.words import with_words
from device_sim.experiment.class_weights import BALANCED, class_numbers, class_sizes
from device_sim.experiment.data import ON_DEMAND
from device_sim.experiment.experiment import Experiment
from device_sim.federation.private import claim_of
from fl_mobile.client.sums import COUNTS, bounded_moments_of, counts_of, counts_question, moments_of, moments_question
from fl_mobile.errors import ConfigError
from fl_mobile.privacy import open_ledger
from fl_mobile.privacy.keys import KEY_BYTES, derive
from fl_mobile.privacy.rules import key_of_seed
from fl_mobile.seeds import rng_for
from fl_mobile.server.sums import Totals, add_up, add_up_private, moments_from, moments_from_bounded, noise_of_means
from fl_mobile.wire.sums import pack_sums

MOST_NOISE = 0.25
"""Of a mean, in halves of its range: with more, nothing is known that the range does not say."""


def standardised(experiment: Experiment, dataset: Dataset, deal: Callable[[], DeviceData], *, table: bool) -> Dataset:
    """Returns the dataset with its scaling as ``data.standardize`` says.

    Args:
        deal: Returns what devices hold.
        table: Whether the dataset is one of named columns.

    Raises:
        ConfigError: It cannot be, or under [privacy] it was not released yet.
    """
    how = how_standardised(experiment, table=table)
    if how == NONE:
        return dataset
    check_can_be_standardised(dataset, how)
    if experiment.data.scaling:
        mean, spread = pairs_of("data.scaling", experiment.data.scaling, dataset)
        if not (spread > 0).all():
            raise ConfigError("data.scaling: a spread must be above 0; give 1 to a column that never changes")
        if how == PUBLIC:
            return with_scaling(dataset, mean, spread, "public constants")
        if not experiment.privacy.on:
            return with_scaling(dataset, mean, spread, "sums that real clients sent")
        return with_scaling(dataset, mean, spread, *_told_of_private(experiment, len(mean)))
    if experiment.data.partition == ON_DEMAND:
        raise ConfigError(
            'data.standardize = "federated": clients that are a function are asked when they train, and for nothing'
            ' before; give data.scaling and data.standardize = "public"'
        )
    if experiment.privacy.on:
        if not experiment.privacy.reproducible:
            raise ConfigError(
                'data.standardize = "federated": noised sums are released once, by a run that simulate begins; here'
                ' there are none. Give data.scaling and data.standardize = "public"'
            )
        mean, spread = _private_moments(experiment, dataset, deal(), key_of_seed(experiment.seed))
        return with_scaling(dataset, mean, spread, *_told_of_private(experiment, len(mean)))
    question = moments_question(rows_of(dataset, dataset.train.x[:1], dataset.train.y[:1]).shape[1])
    data = deal()
    devices = _holders(data)
    totals = add_up(
        question, (pack_sums(question, moments_of(rows_of(dataset, *data.examples(index)))) for index in devices)
    )
    if totals.dropped:
        raise ConfigError(
            f'data.standardize = "federated": sums of {sum(totals.dropped.values())} devices cannot be told, a column'
            f" of {dataset.name} holds numbers beyond 1e15. Divide it before it is saved, or give data.scaling and"
            ' data.standardize = "public"'
        )
    source = f"federated sums, {totals.upload_bytes // len(devices)} bytes of each device"
    return with_scaling(dataset, *moments_from(totals.values), source, totals.upload_bytes)


def in_vocabulary(experiment: Experiment, dataset: Dataset, deal: Callable[[], DeviceData]) -> Dataset:
    """Returns a dataset of words with its vocabulary as ``data.words`` says; any other as it is.

    Args:
        deal: Returns what devices hold.

    Raises:
        ConfigError: Devices use fewer words of the list than it is to have.
    """
    keys, candidates = experiment.data, len(dataset.labels) - 1
    if keys.tokens != WORDS:
        return dataset
    if not keys.words:
        return with_words(dataset, range(1, candidates + 1))
    totals = _counted(deal(), candidates + 1, lambda y: y[y >= 0])
    counts = totals.values[COUNTS][1:]
    used = int(np.count_nonzero(counts))
    if used < keys.words:
        raise ConfigError(f"data.words is {keys.words}, and devices use {used} words of {keys.vocabulary}; lower it")
    kept = np.argsort(-counts, kind="stable")[: keys.words] + 1  # of equals, the earlier in the list
    return with_words(dataset, kept.tolist(), statistics_bytes=totals.upload_bytes)


def with_class_counts(experiment: Experiment, dataset: Dataset, deal: Callable[[], DeviceData]) -> Dataset:
    """Returns the dataset with how many examples of each class devices hold, where the loss is to be balanced by it.

    Args:
        deal: Returns what devices hold.
    """
    asked = experiment.train.class_weights == BALANCED and not experiment.privacy.on
    sizes = class_sizes(dataset)
    if not asked or experiment.data.partition == ON_DEMAND or not sizes:
        return dataset
    totals = _counted(deal(), sum(sizes.values()), partial(class_numbers, dataset))
    counts = tuple(totals.values[COUNTS].tolist())
    return replace(dataset, class_counts=counts, statistics_bytes=dataset.statistics_bytes + totals.upload_bytes)


def _counted(data: DeviceData, classes: int, numbers: Callable[[np.ndarray], np.ndarray]) -> Totals:
    """Returns how often ``numbers`` of the targets of all devices are each of ``classes``."""
    question = counts_question(classes - 1)
    told = (data.examples(index)[1] for index in _holders(data))
    return add_up(question, (pack_sums(question, counts_of(numbers(y), classes - 1)) for y in told))


def _holders(data: DeviceData) -> list[int]:
    """Returns the devices that hold examples."""
    held: list[int] = np.flatnonzero(data.holds(np.arange(data.population))).tolist()
    return held


def to_be_released(experiment: Experiment) -> bool:
    """Returns whether a run that begins has to release noised sums first; those of a seed can be drawn again."""
    keys, privacy = experiment.data, experiment.privacy
    return keys.standardize == FEDERATED and privacy.on and not privacy.reproducible and not keys.scaling


def released(experiment: Experiment, dataset: Dataset, data: DeviceData) -> Experiment:
    """Returns the experiment with what a private run that begins releases of its devices' sums, as ``data.scaling``.

    Args:
        dataset: As it was loaded.
        data: What devices hold.
    """
    keys = experiment.data
    check_can_be_standardised(dataset, FEDERATED)
    mean, spread = _private_moments(experiment, dataset, data, os.urandom(KEY_BYTES))
    return replace(experiment, data=replace(keys, scaling=written(dataset, mean, spread)))


def how_standardised(experiment: Experiment, *, table: bool) -> str:
    """Returns what ``data.standardize`` means here: auto is none wherever sums would have to be told as they are."""
    how = experiment.data.standardize
    if how != AUTO:
        return how
    bare = not experiment.privacy.on and not experiment.masks.on
    return FEDERATED if table and bare else NONE


def _private_moments(
    experiment: Experiment, dataset: Dataset, data: DeviceData, key: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Returns noised mean and spread of every column."""
    low, high = pairs_of("data.ranges", experiment.data.ranges, dataset)
    if not (low < high).all():
        raise ConfigError("data.ranges: expected column=low:high with low below high, e.g. age=0:120")
    claim, cohort = claim_of(experiment, data.population), experiment.train.cohort
    noise = noise_of_means(claim.noise_multiplier, len(low), cohort)
    if noise > MOST_NOISE:
        raise ConfigError(
            f'data.standardize = "federated": the noise on a mean would be {noise:.2g} halves of its range, of'
            f" {cohort} devices and {len(low)} columns. Raise train.cohort, or give data.scaling and"
            ' data.standardize = "public"'
        )
    most, first = experiment.privacy.max_epsilon, open_ledger(claim, experiment.private_releases).after(2).epsilon
    if most and first > most:
        raise ConfigError(
            f"privacy.max-epsilon is {most:g}, and the statistics and one round spend {first:.4g}. Raise it, or"
            " privacy.noise-multiplier"
        )
    rng = rng_for(int.from_bytes(derive(key, "cohort of sums")[:7], "big"), "sums")
    if experiment.selection.sampler == "uniform":
        drawn = np.sort(rng.choice(data.population, cohort, replace=False))
    else:
        drawn = np.flatnonzero(rng.random(data.population) < claim.rate)
    question = moments_question(len(low))
    totals = add_up_private(
        question,
        (
            pack_sums(question, bounded_moments_of(rows_of(dataset, *data.examples(index)), low, high))
            for index in drawn[data.holds(drawn)].tolist()
        ),
        noise_multiplier=claim.noise_multiplier,
        key=derive(key, "noise of sums"),
    )
    return moments_from_bounded(totals.values, low, high, noise)


def _told_of_private(experiment: Experiment, columns: int) -> tuple[str, int]:
    """Returns source and bytes; how many devices were drawn is a secret, so that it is of the expected cohort."""
    each = len(pack_sums(moments_question(columns), moments_of(np.zeros((1, columns), np.float32))))
    cohort = experiment.train.cohort
    return f"noised federated sums of about {cohort} devices, {each} bytes of each", cohort * each
