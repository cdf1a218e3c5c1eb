"""Everything an experiment names, opened once: data on devices, engine, codecs, algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets import Dataset, load_dataset
from device_sim.engines import Engine, Task, open_engine
from device_sim.experiment import Experiment
from device_sim.network import Link, link_of
from device_sim.partition import partition
from fl_mobile.algorithms import Algorithm
from fl_mobile.codecs import Codec, parse_codec
from fl_mobile.models import build_model
from fl_mobile.rate import RateControl
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.tensors import fp32_bytes


@dataclass(frozen=True)
class Federation:
    """An experiment ready to run.

    Attributes:
        shards: For each device the rising indices of its training examples.
        build: Returns a new model with its first weights.
    """

    experiment: Experiment
    dataset: Dataset
    shards: list[np.ndarray]
    engine: Engine
    algorithm: Algorithm
    upload: Codec
    download: Codec
    build: Callable[[], Any]

    def task(self, device: int, round_num: int) -> Task:
        """Returns one device's work in one round."""
        rows = self.shards[device]
        seed = seed_for(self.experiment.seed, round_num, device, "train")
        return Task(device, self.dataset.train.x[rows], self.dataset.train.y[rows], seed)

    def plan(self, round_num: int) -> FitPlan:
        """Returns local training of one round, as the algorithm wants it."""
        return self.algorithm.plan(self.experiment.train.plan(round_num, from_logits=self.engine.from_logits))

    @property
    def rate_control(self) -> RateControl | None:
        """What adapts the upload codec's step, if anything does."""
        return self.experiment.upload.rate_control(fp32_bytes(self.engine.spec))

    def link(self, device: int) -> Link:
        """Returns the device's connection."""
        return link_of(self.experiment.fleet.link, self.experiment.seed, device)

    def cohort(self, round_num: int) -> list[int]:
        """Returns the devices asked in this round, uniformly without replacement, rising."""
        rng = rng_for(self.experiment.seed, round_num, "cohort")
        return sorted(rng.choice(len(self.shards), self.experiment.train.cohort, replace=False).tolist())


def open_federation(experiment: Experiment) -> Federation:
    """Returns the federation an experiment describes; data first, because its mistakes are the commonest.

    Raises:
        DataError, ConfigError, ModelError: What it names cannot be had.
    """
    link_of(experiment.fleet.link, experiment.seed, 0)
    dataset = open_dataset(experiment)
    shards = deal_out(experiment, dataset)
    build = build_of(experiment, dataset)
    keys = experiment.engine
    engine = open_engine(keys.name, build, dataset.train.x[:8], workers=keys.workers, pool=keys.pool)
    return Federation(
        *(experiment, dataset, shards, engine, experiment.server.build()),
        *(parse_codec(experiment.upload.codec), parse_codec(experiment.download.codec)),
        build,
    )


def open_dataset(experiment: Experiment) -> Dataset:
    """Returns the dataset that [data] names."""
    keys = experiment.data
    return load_dataset(
        keys.dataset,
        seed=experiment.seed,
        path=Path(keys.path) if keys.path else None,
        test_fraction=keys.test_fraction,
        options=keys.options(),
    )


def deal_out(experiment: Experiment, dataset: Dataset) -> list[np.ndarray]:
    """Returns for each device the rising indices of its training examples, as [data] says."""
    keys = experiment.data
    return partition(
        keys.partition,
        dataset.train.y,
        keys.devices,
        rng_for(experiment.seed, "partition"),
        alpha=keys.alpha,
        shards_per_device=keys.shards_per_device,
        device_of=dataset.device_of,
        min_examples=keys.min_examples,
    )


def build_of(experiment: Experiment, dataset: Dataset) -> Callable[[], Any]:
    """Returns a function that builds the experiment's model for the dataset, the same one every time."""
    return partial(
        build_model,
        experiment.model.name,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        input_scale=dataset.input_scale,
        seed=experiment.seed,
        weights=experiment.model.weights or None,
    )
