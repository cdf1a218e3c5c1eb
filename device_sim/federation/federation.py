"""Everything an experiment names, opened once: data on devices, engine, codecs, algorithm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from device_sim.attacks.attackers import Attackers, open_attackers
from device_sim.client_data.data import DeviceData
from device_sim.client_data.held_out import SplitDevices
from device_sim.datasets import Dataset
from device_sim.engines import Engine, open_engine
from device_sim.engines.checks import check_tokens_of_ports, check_training
from device_sim.engines.trainers.steps import start_with_one_thread
from device_sim.experiment.as_compiled import as_compiled, of_outputs
from device_sim.experiment.class_weights import class_weights_of
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.personal import DITTO
from device_sim.federation.dealing import data_of, dealt_as, open_dataset, task_line
from device_sim.federation.masks import masks_of, moves_step
from device_sim.federation.private import check_claim, claim_of, local_noise_of, rules_of, share_noise_of
from device_sim.fleet.availability.gate import Gate
from device_sim.fleet.availability.presence import open_presence
from device_sim.fleet.devices.cost import workload_of
from device_sim.fleet.devices.fleet import Fleet, open_fleet
from device_sim.fleet.devices.timing import Workload
from device_sim.fleet.selection.policies import Policy
from device_sim.fleet.selection.samplers import SAMPLERS
from device_sim.fleet.selection.strata import Holdings, Strata, open_strata
from export.tuning import with_fake_quant
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import Algorithm
from fl_mobile.client.private import private_paths
from fl_mobile.codecs import Codec, parse_codec
from fl_mobile.codecs.choice import AUTO, fitted
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError
from fl_mobile.local.compiled import Compiled, compiled_of
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import build_model
from fl_mobile.models.ends import author_of, with_joined_ends
from fl_mobile.models.finish import with_standardised_inputs
from fl_mobile.privacy import Claim, Ledger, open_ledger
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.records import FitPlan
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.server.rate import rate_control_of
from fl_mobile.server.schedule import Schedule
from fl_mobile.server.step import ServerRules
from fl_mobile.tasks import check_further
from fl_mobile.tensors import Spec, Tensors


@dataclass(frozen=True)
class Federation:
    """An experiment ready to run.

    Attributes:
        data: What each device holds.
        fleet: What each device is.
        gate: Who can take part.
        policy: And who then does.
        workload: What training costs, whatever the phone.
        upload: Codec of client updates, as large as the model and the target make it.
        chosen_because: Why it is that one.
        build: Returns a new model with its first weights.
        masks: How uploads are added under masks, if they are.
        attackers: The malicious devices, if some are.
        compiled: What was taken of the model's own ``compile()`` and what was not, in a line; empty without one.
    """

    experiment: Experiment
    dataset: Dataset
    data: DeviceData
    engine: Engine
    algorithm: Algorithm
    upload: Codec
    download: Codec
    fleet: Fleet
    gate: Gate
    policy: Policy
    workload: Workload
    build: Callable[[], Any]
    masks: MaskPlan | None = None
    attackers: Attackers | None = None
    compiled: str = ""
    chosen_because: str = ""

    def plan(self, round_num: int) -> FitPlan:
        """Returns local training of one round, as the algorithm wants it."""
        return self.algorithm.plan(self.plain_plan(round_num))

    def plain_plan(self, round_num: int) -> FitPlan:
        """Returns local training of one round as [train] and the task say it."""
        return self.experiment.train.plan(
            round_num,
            from_logits=self.engine.from_logits,
            task=self.dataset.trained_task,
            class_weights=self.class_weights,
        )

    @functools.cached_property
    def class_weights(self) -> tuple[float, ...]:
        """What the loss of each class is multiplied by; empty is 1."""
        return class_weights_of(self.experiment.train.class_weights, self.dataset, private=self.experiment.privacy.on)

    def examples(self, device: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what a device trains on, targets as engines take them: with weights, where the data has some."""
        x, y = self.data.examples(device)
        return x, self.dataset.trained_targets(y, self.data.weights(device))

    @property
    def task(self) -> str:
        """What is trained, by which loss, and why it is that, in a line."""
        return task_line(self.dataset, self.plain_plan(0).loss)

    @property
    def dealt(self) -> str:
        """How examples came to devices, as a person would say it."""
        name = dealt_as(self.experiment, self.dataset)
        if name != "natural" or self.experiment.data.partition:
            return name
        return "natural: as the data came; data.partition deals them out otherwise"

    @functools.cached_property
    def private(self) -> frozenset[str]:
        """Paths of the tensors that stay on devices."""
        return private_paths(self.engine.spec, self.experiment.personal.private)

    @functools.cached_property
    def spec(self) -> Spec:
        """What travels: all that is trained, less what is private."""
        return {path: tensor for path, tensor in self.engine.spec.items() if path not in self.private}

    @property
    def initial(self) -> Tensors:
        """First weights of what travels."""
        return {path: self.engine.initial[path] for path in self.spec}

    def whole(self, weights: Tensors) -> Tensors:
        """Returns a model of travelling weights; its private tensors are the first ones, all the server ever has."""
        return {path: weights.get(path, first) for path, first in self.engine.initial.items()}

    @property
    def test_parts(self) -> SplitDevices | None:
        """What each device is tested on, if devices hold anything out."""
        return self.data if isinstance(self.data, SplitDevices) else None

    @property
    def epochs(self) -> int:
        """Passes over its examples a device makes in a round: for the model, and under Ditto for its own."""
        keys = self.experiment
        return keys.train.epochs + (keys.personal.epochs if keys.personal.method == DITTO else 0)

    @functools.cached_property
    def agreement(self) -> Agreement:
        """What clients and server know before the first round."""
        keys = self.experiment
        return Agreement(
            spec=self.spec,
            initial=self.initial,
            algorithm=self.algorithm,
            upload=self.upload,
            download=self.download,
            memory=keys.upload.memory,
            delta_step=keys.download.lattice_step,
            forward=keys.download.mode == "forward",
            pruning=keys.train.pruning,
            seed=keys.seed,
            bare_packets=keys.privacy.on or keys.masks.on,
            local_noise=self.local_noise,
            share_noise=self.share_noise,
            masks=self.masks,
        )

    @functools.cached_property
    def claim(self) -> Claim | None:
        """What is claimed under differential privacy, if anything is."""
        keys = self.experiment
        return claim_of(keys, self.data.population, self.upload, self.masks) if keys.privacy.on else None

    @functools.cached_property
    def ledger(self) -> Ledger | None:
        """What every number of rounds costs then."""
        return open_ledger(self.claim, self.experiment.private_releases) if self.claim else None

    @functools.cached_property
    def local_noise(self) -> LocalNoise | None:
        """What every device adds to its own update, if devices do."""
        local = self.experiment.privacy.local and self.claim and self.ledger
        return local_noise_of(self.experiment, self.claim, self.ledger) if local else None  # type: ignore[arg-type]

    @functools.cached_property
    def share_noise(self) -> ShareNoise | None:
        """What every device adds a share of under its mask, if devices do."""
        keys, claim, ledger, masks = self.experiment, self.claim, self.ledger, self.masks
        there = keys.privacy.distributed and claim and ledger and masks
        return share_noise_of(keys, claim, ledger, self.upload, masks=masks) if there else None  # type: ignore[arg-type]

    @functools.cached_property
    def rules(self) -> ServerRules:
        """How the server counts what it gets."""
        keys = self.experiment
        return ServerRules(
            admission=keys.admission(0 if keys.clock.mode == "synchronous" else keys.clock.max_staleness),
            rule=keys.server.rule(),
            population=self.data.population,
            population_examples=self._examples if self.algorithm.variate else 0,
            rate_control=rate_control_of(self.upload, keys.upload.target.packet_bytes(self.spec)),
            schedule=Schedule(keys.server.schedule, keys.server.of_schedule, keys.train.rounds),
            averaging=keys.server.averages(),
            moves_step=moves_step(keys),
            ternary=keys.download.ternary,
            privacy=rules_of(keys, self.claim) if self.claim and keys.privacy.central else None,
        )

    @property
    def _examples(self) -> int:
        """Examples on all devices, none counting for more than the server lets it."""
        counts = self.data.counts(np.arange(self.data.population))
        return int(np.minimum(counts, self.experiment.server.max_examples).sum())

    @property
    def uses_ledger(self) -> bool:
        """Whether anything asks what devices did before; if not, nothing is written down about them."""
        keys = self.experiment
        return (
            SAMPLERS[keys.selection.sampler].remembers
            or keys.policy.name != "every-round"
            or keys.policy.min_separation_seconds > 0
            or keys.fleet.min_battery > 0
        )

    @functools.cached_property
    def strata(self) -> Strata:
        """What ``stratified`` sampling keeps in proportion."""
        holdings = Holdings(self.data.majority_labels, self.data.counts)
        return open_strata(self.experiment.selection.of_sampler.strata, self.fleet, holdings)


def open_federation(
    experiment: Experiment,
    make: Callable[..., Any] | None = None,
    *,
    open_keys: frozenset[str] = frozenset(),
    compiled: Compiled | None = None,
    data: DeviceData | None = None,
) -> Federation:
    """Returns the federation an experiment describes; data first, because its mistakes are the commonest.

    Args:
        make: Builds the model in place of what [model] names; takes the arguments of `build_model` but the name.
        open_keys: Keys that nobody wrote and that the model's ``compile()`` says: `device_sim.experiment.as_compiled`.
        compiled: What the model was compiled with, where what ``make`` builds does not know it.
        data: What each device holds, in place of what [data] says.

    Raises:
        DataError, ConfigError, ModelError: What it names cannot be had.
        ExportError: [train.qat] is on and the model has no graph to round in; or the engine is the phone's program,
            and a layer cannot train there.
    """
    dataset = open_dataset(experiment)
    data = data or data_of(experiment, dataset)
    weights = class_weights_of(experiment.train.class_weights, dataset, private=experiment.privacy.on)
    build = build_of(experiment, dataset, make)
    start_with_one_thread()
    model, told, keys = build(), "", experiment.engine
    if compiled := compiled or compiled_of(author_of(model)):
        experiment, told = as_compiled(experiment, compiled, open_keys)
    engine = open_engine(
        keys.name,
        build,
        dataset.train.x[:8],
        plan=experiment.server.build().plan(
            experiment.train.plan(0, from_logits=True, task=dataset.trained_task, class_weights=weights)
        ),
        workers=keys.workers,
        pool=keys.pool,
        ray_address=keys.ray_address,
    )
    try:
        workload = checked_workload(experiment, dataset, model)
        federation = assemble(
            experiment=experiment, dataset=dataset, data=data, engine=engine, workload=workload, build=build
        )
        return replace(federation, compiled=told + of_outputs(compiled, from_logits=engine.from_logits))
    except BaseException:
        engine.close()
        raise


def settled(experiment: Experiment, open_keys: frozenset[str]) -> tuple[Experiment, str]:
    """Returns the experiment as its model was compiled, and a line of that, where nothing else is to be opened yet."""
    if ":" not in experiment.model.name:  # models of the table are not compiled
        return experiment, ""
    dataset = open_dataset(experiment)
    start_with_one_thread()
    compiled = compiled_of(author_of(build_of(experiment, dataset)()))
    return as_compiled(experiment, compiled, open_keys) if compiled else (experiment, "")


def checked_workload(experiment: Experiment, dataset: Dataset, model: Any) -> Workload:
    """Returns what training costs, once it is known that the model can be trained on the data."""
    loss = experiment.train.plan(0, from_logits=True, task=dataset.task).loss
    examples = {f"{dataset.name}, {n} part": (p.x, p.y) for n, p in (("train", dataset.train), ("test", dataset.test))}
    if dataset.ports:
        check_tokens_of_ports(author_of(model), dataset.ports, {n: dataset.inputs(x) for n, (x, _) in examples.items()})
    check_training(model, loss, examples, dataset.num_classes, task=dataset.task)
    check_further(dataset.task, experiment.output.metrics, dataset.test.y[:8], dataset.num_classes)
    if experiment.train.qat.on:
        with_fake_quant(model)  # what cannot be rounded is told now, not in the round that begins to
    slots = len(local_optimizer(experiment.train.optimizer).slots)
    return workload_of(model, dataset.input_shape, optimizer_slots=slots)


def assemble(
    experiment: Experiment,
    dataset: Dataset,
    data: DeviceData,
    engine: Engine,
    workload: Workload,
    build: Callable[[], Any],
) -> Federation:
    """Returns the federation of parts that are open already; the fleet is drawn as [fleet] says.

    Raises:
        ConfigError, DataError: A file that [fleet] names cannot be used.
    """
    keys, population, fraction = experiment.fleet, data.population, experiment.evaluation.device_test_fraction
    if experiment.train.cohort > population:
        raise ConfigError(
            f"train.cohort ({experiment.train.cohort}) must not exceed the {population} devices that the data comes"
            " from: a round cannot choose more. Lower it, or deal the examples anew with data.partition"
        )
    if fraction:
        data = SplitDevices(data, experiment.seed, fraction)
    fleet = open_fleet(
        experiment.seed, population, profile=keys.profile, link=keys.link, devices_file=keys.devices_file
    )
    presence = open_presence(
        keys.availability, experiment.seed, population, clock=keys.clock(), availability_file=keys.availability_file
    )
    ram_bytes = workload.ram_bytes(experiment.train.batch_size or 1)
    gate = Gate(fleet=fleet, presence=presence, rules=keys.rules(), ram_bytes=ram_bytes, ram_share=keys.ram_share)
    policy = experiment.policy.build(experiment.seed)
    private = private_paths(engine.spec, experiment.personal.private)
    spec = {path: tensor for path, tensor in engine.spec.items() if path not in private}
    masks = masks_of(experiment, spec)
    upload, why = experiment.codec_of_uploads(spec)
    if experiment.upload.codec == AUTO:  # what the model's size has decided meets the other keys now
        replace(experiment, upload=replace(experiment.upload, codec=upload.name))
    federation = Federation(
        experiment=experiment,
        dataset=dataset,
        data=data,
        engine=engine,
        algorithm=experiment.server.build(),
        upload=fitted(upload, experiment.upload.target, spec, experiment.seed, masked=masks.group if masks else 0),
        masks=masks,
        download=parse_codec(experiment.download.codec),
        fleet=fleet,
        gate=gate,
        policy=policy,
        workload=workload,
        build=build,
        attackers=open_attackers(experiment.attack, experiment.seed, population, dataset),
        chosen_because=why,
    )
    if experiment.privacy.on:
        check_claim(experiment, federation.spec, data, gate)
    if (noise := federation.share_noise) and isinstance(federation.upload, Sketch):
        federation = replace(federation, upload=noise.fields(federation.upload))
    return federation


def build_of(experiment: Experiment, dataset: Dataset, make: Callable[..., Any] | None = None) -> Callable[[], Any]:
    """Returns a function that builds the experiment's model for the dataset, the same one every time."""
    build = partial(
        make or partial(build_model, experiment.model.name),
        **dataset.told_to_builders,
        task=dataset.task,
        seed=experiment.seed,
        weights=experiment.model.weights or None,
    )
    if scaling := dataset.scaling:
        mean, spread = scaling.mean.tolist(), scaling.spread.tolist()
        build = partial(with_standardised_inputs, build, mean, spread, task=dataset.task, ports=dataset.ports)
    return build if dataset.ends is None else partial(with_joined_ends, build, dataset.ports, dataset.task)
