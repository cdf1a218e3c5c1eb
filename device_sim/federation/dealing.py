"""Which examples there are, and which device holds which: [data] of an experiment, opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_sim.client_data.data import DealtData, DeviceData, made_data
from device_sim.client_data.partition import partition
from device_sim.datasets import DATASETS, Dataset, load_dataset
from device_sim.datasets.split import with_public
from device_sim.experiment.data import ON_DEMAND
from device_sim.experiment.experiment import Experiment
from device_sim.federation.sums import in_vocabulary, released, standardised, to_be_released, with_class_counts
from fl_mobile.errors import ConfigError, DataError
from fl_mobile.seeds import rng_for
from fl_mobile.tasks import MULTI_HEAD, strata_of, task_row


def open_dataset(experiment: Experiment) -> Dataset:
    """Returns the dataset that [data] names, with what the server keeps of it and what devices' sums say of it."""
    dataset = loaded(experiment)
    dataset = in_vocabulary(experiment, dataset, lambda: data_of(experiment, dataset))
    table = DATASETS[experiment.data.dataset].table
    dataset = standardised(experiment, dataset, lambda: data_of(experiment, dataset), table=table)
    return with_class_counts(experiment, dataset, lambda: data_of(experiment, dataset))


def with_sums_released(experiment: Experiment) -> Experiment:
    """Returns the experiment of a run that begins: under [privacy], with what devices' noised sums say written into it.

    Raises:
        ConfigError: They cannot be had.
    """
    if not to_be_released(experiment):
        return experiment
    dataset = loaded(experiment)
    return released(experiment, dataset, data_of(experiment, dataset))


def loaded(experiment: Experiment) -> Dataset:
    """Returns the dataset as its files have it, with what the server keeps of it for an update of its own."""
    keys = experiment.data
    dataset = load_dataset(
        keys.dataset,
        seed=experiment.seed,
        path=Path(keys.path) if keys.path else None,
        test_fraction=keys.test_fraction,
        options=keys.options(),
        task=experiment.task.name,
        heads=experiment.task.heads,
    )
    return with_servers_part(experiment, dataset)


def with_servers_part(experiment: Experiment, dataset: Dataset) -> Dataset:
    """Returns the dataset with public examples set aside, if the aggregation rule has the server train on some."""
    server = experiment.server
    if not server.rule().reference:
        return dataset
    if experiment.data.partition == ON_DEMAND and experiment.data.dataset != "synthetic":
        raise ConfigError(
            f"server.aggregation {server.aggregation} sets public examples aside, and clients that are a function have"
            " none; take another rule, or give the clients as arrays"
        )
    return with_public(dataset, server.of_aggregation.public_examples, experiment.seed)


def data_of(experiment: Experiment, dataset: Dataset) -> DeviceData:
    """Returns what each device holds, as [data] says."""
    keys = experiment.data
    if keys.partition == ON_DEMAND and keys.dataset != "synthetic":
        raise DataError(
            "the clients are a function of the Python program that made this run: go on there, with"
            " device_sim.simulate(model, function, …, out=FOLDER, resume=True)."
        )
    if keys.partition == ON_DEMAND:
        return made_data(
            seed=experiment.seed,
            population=keys.devices,
            keys=keys.options(),
            examples_per_device=keys.examples_per_device,
            alpha=keys.alpha,
        )
    return DealtData(dataset.train, tuple(deal_out(experiment, dataset)))


def dealt_as(experiment: Experiment, dataset: Dataset) -> str:
    """Returns the partition: what [data] says, else natural where the data knows its devices, else dirichlet.

    Where there are no classes to be skewed, quantities are.
    """
    if experiment.data.partition or dataset.device_of is not None:
        return experiment.data.partition or "natural"
    return "dirichlet" if len(np.unique(strata_of(dataset.train.y))) > 1 else "quantity-skew"


def deal_out(experiment: Experiment, dataset: Dataset) -> list[np.ndarray]:
    """Returns for each device the rising indices of its training examples, as [data] says."""
    keys, name = experiment.data, dealt_as(experiment, dataset)
    known = None if dataset.device_of is None or name != "natural" else len(np.unique(dataset.device_of))
    if known is not None and keys.devices not in (known, type(keys).devices):
        raise ConfigError(
            f"data.devices is {keys.devices}, but the data comes from {known} devices, which partition natural keeps:"
            f" leave data.devices out, or deal the examples anew with data.partition, e.g. dirichlet"
        )
    return partition(
        name,
        strata_of(dataset.train.y),
        known or keys.devices,
        rng_for(experiment.seed, "partition"),
        alpha=keys.alpha,
        shards_per_device=keys.shards_per_device,
        device_of=dataset.device_of,
        min_examples=keys.min_examples,
    )


def task_line(dataset: Dataset, loss: str) -> str:
    """Returns what is trained, by which loss, and why it is that, in a line."""
    row = task_row(dataset.task)
    score = row.score_name + ("" if dataset.train.weight is None else ", both by the weights of the examples")
    if row.heads:
        told = ", ".join(f"{h.name} {h.loss}{'' if h.weight == 1 else f' × {h.weight:g}'}" for h in row.heads)
        return f"{MULTI_HEAD}, because {dataset.why}: losses {told}; score {score}"
    return f"{dataset.task}, because {dataset.why}: loss {loss}, score {score}"
