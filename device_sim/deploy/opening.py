"""An experiment as the coordinator serves it: the federation, and what clients fetch before their first round."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

from device_sim.attacks import NONE
from device_sim.datasets import DATASETS
from device_sim.datasets.scaling import FEDERATED
from device_sim.deploy.training import CONTRACT, PROGRAM
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.engines.trainers.litert import LitertTrainer, Programs
from device_sim.engines.trainers.steps import start_with_one_thread
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.personal import DITTO
from device_sim.federation.dealing import data_of, open_dataset
from device_sim.federation.federation import Federation, assemble, build_of, checked_workload
from device_sim.federation.sums import how_standardised
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.errors import ConfigError
from fl_mobile.protocol.terms import initial_bytes, terms_to_json

RUNTIME = "litert"


def deployable(experiment: Experiment, *, drawn: bool = False) -> Experiment:
    """Returns the experiment with the phone's program as its engine.

    Args:
        drawn: Whether the server draws who is asked.

    Raises:
        ConfigError: It asks for what only a simulation can do.
    """
    why = [
        ("train.batch-size", experiment.train.batch_size == 0, "a phone's program has a fixed batch; give it a size"),
        ("attack.name", experiment.attack.name != NONE, "who attacks a real federation does so unasked"),
        (
            "server.aggregation",
            experiment.server.rule().reference,
            "the coordinator trains no update of its own; use multi-krum or norm-bound",
        ),
        (
            "privacy.mode",
            experiment.privacy.central and not drawn,
            "who comes first is no secret draw, as ε assumes; use --cohort drawn, or local or distributed noise",
        ),
        ("privacy.reproducible", experiment.privacy.reproducible, "noise that anybody can repeat protects nobody"),
        (
            "privacy.mode without clock.deadline-seconds",
            experiment.privacy.central and not experiment.clock.deadline_seconds,
            "one client that was drawn and stays away would hold its round for ever; give a deadline",
        ),
        ("policy.name", experiment.policy.name != "every-round", "real clients decide by their own conditions"),
        ("personal.method", experiment.personal.method == DITTO, "a phone's program trains one model"),
        (
            "evaluation.device-test-fraction",
            experiment.evaluation.device_test_fraction > 0,
            "the server has no examples of its clients to evaluate on",
        ),
        (
            "data.standardize",
            experiment.data.standardize == FEDERATED and experiment.privacy.on,
            "they are asked for no noised sums before round 1; use public with data.scaling, or none",
        ),
        (
            "data.words",
            experiment.data.words > 0,
            "they hold tokens of a known vocabulary; use 0, which takes the whole list of data.vocabulary",
        ),
    ]
    for key, refused, reason in why:
        if refused:
            raise ConfigError(f"serve: {key} cannot be used with real clients: {reason}")
    return replace(
        decided(experiment),
        engine=replace(experiment.engine, name=RUNTIME, pool="", ray_address=""),
        output=replace(experiment.output, timeline_rounds=0),  # a server sees no device's times
    )


def decided(experiment: Experiment) -> Experiment:
    """Returns the experiment with ``data.standardize`` as it is meant of its dataset, instead of ``auto``."""
    how = how_standardised(experiment, table=DATASETS[experiment.data.dataset].table)
    return replace(experiment, data=replace(experiment.data, standardize=how))


def open_deployed(experiment: Experiment) -> tuple[Federation, dict[str, bytes]]:
    """Returns the federation, evaluated on the phone's own program, and the program's files.

    Raises:
        DataError, ConfigError, ModelError, ExportError: As `open_federation`.
    """
    import json

    dataset = open_dataset(experiment)
    data, build = data_of(experiment, dataset), build_of(experiment, dataset)
    start_with_one_thread()
    programs = Programs(build, dataset.train.x[:8], dataset.ports)
    workers = experiment.engine.workers or os.cpu_count() or 1
    engine = PooledEngine([LocalWorker(LitertTrainer(programs, RUNTIME)) for _ in range(workers)])
    try:
        workload = checked_workload(experiment, dataset, build())
        federation = assemble(
            experiment=experiment, dataset=dataset, data=data, engine=engine, workload=workload, build=build
        )
        plan = federation.plan(0)
        engine.prepare(plan)
        pulled = federation.algorithm.variate is not None
        _, (tflite, contract) = programs.get(plan, plan.batch_size, pulled=pulled)
        if (scaling := dataset.scaling) and len(scaling.target_mean):  # clients hold numbers in units of their own
            mean, spread = tuple(scaling.target_mean.tolist()), tuple(scaling.target_spread.tolist())
            contract = replace(contract, target_mean=mean, target_spread=spread)
        return federation, {PROGRAM: tflite, CONTRACT: json.dumps(contract.to_json(), sort_keys=True).encode()}
    except BaseException:
        engine.close()
        raise


def publish_terms(federation: Federation, coordinator: Coordinator) -> frozenset[str]:
    """Stores what clients fetch once, and has the coordinator name it; returns the blobs: terms and the app's model."""
    keys = federation.experiment.server
    initial = coordinator.blobs.put(initial_bytes(federation.engine.initial))
    parameters: dict[str, Any] = asdict(keys.of_algorithm)
    terms = terms_to_json(
        agreement=federation.agreement,
        spec=federation.engine.spec,
        private=federation.private,
        initial=initial,
        parameters=parameters,
    )
    coordinator.terms = coordinator.blobs.put(terms)
    return frozenset({coordinator.terms.sha256, initial.sha256})


def with_statistics_bytes(federation: Federation, upload_bytes: int) -> Federation:
    """Returns the federation with what its devices sent before round 1, for its summary."""
    return replace(federation, dataset=replace(federation.dataset, statistics_bytes=upload_bytes))
