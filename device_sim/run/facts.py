"""A finished run as the facts of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from device_sim.experiment.data import Data
from device_sim.experiment.experiment import Experiment, Train
from device_sim.experiment.toml import read_experiment
from device_sim.run.folder import RunFolder
from device_sim.run.privacy import privacy_told
from export.report.facts import TrainingFacts
from fl_mobile.errors import RunError


def facts_of_run(experiment: Experiment, summary: Mapping[str, Any], *, license: str = "") -> TrainingFacts:
    """Returns what is known about the model of a run.

    Args:
        experiment: As it was run.
        summary: Of the finished run, as ``summarise`` gives it.
        license: Of the exported weights; empty is not stated.
    """
    devices, dataset = summary["devices"], summary["dataset"]
    return TrainingFacts(
        model=experiment.model.name,
        license=license,
        rounds=summary["kept"]["round"] + 1,
        devices=f"{devices['population']:,}, simulated; {_averaged(experiment, devices)}",
        method=f"{experiment.server.algorithm}, {experiment.train.cohort} devices a round,"
        f" uploads by codec {experiment.upload.codec}{made_small(experiment.train)}",
        dataset=dataset["name"],
        data_source=dataset["source"],
        data_fingerprint=dataset["fingerprint"],
        train_examples=dataset["train_examples"],
        partition=_partition(dataset["partition"], experiment.data),
        privacy=privacy_told(summary.get("privacy")),
        experiment_sha256=summary["experiment_sha256"],
        command="fl-mobile simulate experiment.toml",
        held_out_is_new=True,
    )


def made_small(train: Train) -> str:
    """Returns what [train.pruning] and [train.qat] did, as the end of a sentence; empty where both are off.

    >>> from device_sim.experiment.tuning import Qat
    >>> from fl_mobile.wire.pruning_mask import PruningPlan
    >>> made_small(Train(pruning=PruningPlan(0.8, begin_round=10, end_round=40), qat=Qat(60)))
    ', pruned to 80 % zeros by round 40, trained for int8 from round 60 on'
    """
    zeros = f", pruned to {train.pruning.sparsity:.0%} zeros by round {train.pruning.settled_round}".replace("%", " %")
    rounding = f", trained for int8 from round {train.qat.begin_round} on"
    return (zeros if train.pruning.sparsity else "") + (rounding if train.qat.on else "")


def facts_of_run_folder(
    folder: RunFolder, summary: Mapping[str, Any] | None, experiment: Experiment, *, license: str = ""
) -> TrainingFacts:
    """Returns what is known about the model in a run folder.

    Args:
        folder: The run.
        summary: Of the run; None when it is not finished.
        experiment: Whose held-out examples measure it; the run's own, unless they were changed.
        license: Of the exported weights.

    Raises:
        RunError: The summary is damaged.
    """
    own = read_experiment(folder.experiment)
    if summary is None:
        return TrainingFacts(model=own.model.name, license=license)
    try:
        facts = facts_of_run(own, summary, license=license)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.summary} lacks what a summary must say ({error!r})") from None
    same_split = (own.data, own.seed) == (experiment.data, experiment.seed)
    return replace(facts, held_out_is_new=True if same_split else None)


def facts_of_first_weights(experiment: Experiment, *, license: str = "") -> TrainingFacts:
    """Returns what is known about a model of the table that no run has trained."""
    if experiment.model.weights:
        return TrainingFacts(model=experiment.model.name, license=license)
    return TrainingFacts(
        model=experiment.model.name,
        license=license,
        rounds=0,
        privacy="Nothing was trained, so no example left a trace in the weights",
        held_out_is_new=True,
    )


def _averaged(experiment: Experiment, devices: Mapping[str, Any]) -> str:
    if experiment.privacy.on:  # how many came is not for everybody to know
        return f"about {experiment.train.cohort:,} updates a round were added"
    return f"{devices['accepted']:,} updates were averaged"


def _partition(name: str, data: Data) -> str:
    return name + (f", alpha {data.alpha:g}" if name in ("dirichlet", "quantity-skew") else "")
