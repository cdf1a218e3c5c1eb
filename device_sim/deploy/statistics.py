"""Federated statistics of real clients: asked for before there is a model, because its graph or its loss holds them.

```
serve ─▶ questions ─▶ the first devices that come ─ packets ─▶ fl_mobile.server.sums ─▶ constants of the run
```
What came out is written into the run's own experiment: a run that goes on, and whoever opens it later, reads it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from device_sim.datasets import Dataset
from device_sim.datasets.scaling import FEDERATED, check_can_be_standardised, column_names, feature_names, written
from device_sim.deploy.serve import Service, gathering
from device_sim.experiment.class_weights import BALANCED, class_sizes, class_weights_of
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import to_toml
from device_sim.run.folder import RunFolder, reopen
from fl_mobile.client.sums import COUNTS
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.protocol.statistics import CLASSES, MOMENTS, MOST_COLUMNS, Statistic
from fl_mobile.server.sums import add_up, moments_from
from fl_mobile.storage.files import write_atomic


def asks(experiment: Experiment) -> bool:
    """Returns whether clients are to be asked for sums before round 1."""
    unscaled = experiment.data.standardize == FEDERATED and not experiment.data.scaling
    return unscaled or experiment.train.class_weights == BALANCED


def as_gathered(experiment: Experiment, stored: Experiment) -> Experiment:
    """Returns the experiment of a run that goes on with the constants that its devices' sums gave."""
    data, train = experiment.data, experiment.train
    if data.standardize == stored.data.standardize == FEDERATED and not data.scaling:
        data = replace(data, scaling=stored.data.scaling)
    if train.class_weights == BALANCED:
        train = replace(train, class_weights=stored.train.class_weights)
    return replace(experiment, data=data, train=train)


def gather(
    folder: RunFolder,
    dataset: Dataset,
    service: Service,
    *,
    say: Callable[[str], None] = lambda line: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Experiment, Service]:
    """Returns the experiment of a run with what its devices' sums say in it, and the service on the port it has now.

    The folder must be locked by this process, and its experiment is that of `deployable`.

    Args:
        dataset: As it was loaded.

    Raises:
        ConfigError: As `questions`, or the address cannot be used.
        RunError: Devices were asked for something else in an earlier life of the run.
        KeyboardInterrupt: It was stopped.
    """
    experiment = reopen(folder.path)[1]
    if not asks(experiment):
        return experiment, service
    asked, most = questions(experiment, dataset), service.sums or experiment.train.cohort
    with gathering(folder, service, max(one.columns for one in asked), stopped) as (coordinator, url):
        say(f"asking the first {most} devices that come to {url} for sums: {', '.join(one.about for one in asked)}")
        packets = coordinator.gather(asked, most=most, stopped=stopped)
    if packets is None:
        raise KeyboardInterrupt
    experiment = _with(experiment, dataset, asked, packets)
    write_atomic(folder.experiment, to_toml(experiment).encode())
    return experiment, replace(service, port=int(url.rpartition(":")[2]))


def questions(experiment: Experiment, dataset: Dataset) -> list[Statistic]:
    """Returns what devices are asked.

    Raises:
        ConfigError: It cannot be had of this data.
    """
    found = []
    if experiment.data.standardize == FEDERATED and not experiment.data.scaling:
        check_can_be_standardised(dataset, FEDERATED)
        columns, features = len(column_names(dataset)), len(feature_names(dataset))
        rows = tuple(f"x.{port.name}:{port.size}" for port in dataset.ports if port.is_row)
        found.append(Statistic(MOMENTS, columns, columns - features, rows))
    if experiment.train.class_weights == BALANCED:
        class_weights_of(BALANCED, dataset, private=experiment.privacy.on)  # for its refusals
        sizes = class_sizes(dataset)
        told = tuple(f"y.{name}:{classes}" for name, classes in sizes.items()) if dataset.heads else ()
        found.append(Statistic(CLASSES, sum(sizes.values()), parts=told))
    if most := [one for one in found if one.columns > MOST_COLUMNS]:
        raise ConfigError(
            f"serve: devices are asked for sums of {MOST_COLUMNS} columns or classes at most, {dataset.name} has"
            f" {most[0].columns}: give data.scaling, or train.class-weights as numbers"
        )
    return found


def _with(
    experiment: Experiment, dataset: Dataset, asked: Sequence[Statistic], packets: Mapping[str, Sequence[bytes]]
) -> Experiment:
    for one in asked:
        added = add_up(one.question, packets[one.about])
        if added.dropped:
            raise RunError(
                f"{sum(added.dropped.values())} devices have sent sums of '{one.about}' that answer another question:"
                " the data have changed since they were asked. Put them back, or start again with another --out."
            )
        totals = added.values
        if one.about == MOMENTS:
            scaling = written(dataset, *moments_from(totals))
            experiment = replace(experiment, data=replace(experiment.data, scaling=scaling))
        else:
            counted = replace(dataset, class_counts=tuple(totals[COUNTS].tolist()))
            weights = class_weights_of(BALANCED, counted, private=False)
            text = ",".join(map(repr, weights))
            experiment = replace(experiment, train=replace(experiment.train, class_weights=text))
    return experiment
