"""An experiment as frozen records; every field is a key of the TOML file, kebab-case, with its help beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import FunctionType
from typing import Any

from device_sim.datasets import DATASETS
from device_sim.datasets.scaling import FEDERATED
from device_sim.engines import ENGINES, POOLS
from device_sim.experiment.attack import AttackPlan
from device_sim.experiment.class_weights import numbers_in
from device_sim.experiment.crossings import check_crossings
from device_sim.experiment.data import Data
from device_sim.experiment.fleet import Clock, Fleet, Selection, UpdatePolicy
from device_sim.experiment.idle import idle_keys, is_default
from device_sim.experiment.kept import KEEP, LAST, METRICS
from device_sim.experiment.keys import check_finite, chosen, fill_chosen, key, positive
from device_sim.experiment.masks import Masks
from device_sim.experiment.personal import Evaluation, Personal
from device_sim.experiment.privacy import Privacy
from device_sim.experiment.travel import Download, Upload
from device_sim.experiment.tuning import Qat, check_tuning
from export.convert.recipes import asked_for
from export.tuning import ORIGINS
from fl_mobile.aggregation import AGGREGATORS, AggregationRow
from fl_mobile.algorithms import ALGORITHMS, Algorithm
from fl_mobile.codecs import Codec, part_names
from fl_mobile.codecs.choice import choose
from fl_mobile.errors import ConfigError, check_known, nearest
from fl_mobile.local import LOSSES, OPTIMIZERS
from fl_mobile.records import SCHEDULES, FitPlan
from fl_mobile.server.admission import WEIGHTINGS, Admission
from fl_mobile.server.averaging import AVERAGINGS, Averaging
from fl_mobile.server.schedule import SCHEDULES as SERVER_SCHEDULES
from fl_mobile.table import Table, check_row, is_own, own_rows, registered, source_sha256
from fl_mobile.tasks import AUTO, MULTI_HEAD, TASKS, decided
from fl_mobile.tasks import METRICS as TOLD
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import Spec
from fl_mobile.wire.pruning_mask import PruningPlan


@dataclass(frozen=True)
class Task:
    """[task]: what is to be answered; it brings the loss, the metrics and how the artifact is judged."""

    name: str = key(AUTO, f"{AUTO} (seen from the targets) | {' | '.join((*TASKS, MULTI_HEAD))}")
    heads: tuple[str, ...] = key(
        (), "several targets: name=task:loss*weight of those that are not as they look", ("pain=regression:huber*0.5",)
    )

    def __post_init__(self) -> None:
        check_known("task.name", self.name, (AUTO, *TASKS, MULTI_HEAD))
        object.__setattr__(self, "heads", tuple(self.heads))
        if self.heads and self.name not in (AUTO, MULTI_HEAD):
            raise ConfigError(f'task.heads are of task.name = "{MULTI_HEAD}", got "{self.name}": leave one of them out')


@dataclass(frozen=True)
class Model:
    """[model]: what is trained."""

    name: str = key("smart-camera-cnn", "a name from `fl-mobile models`, or package.module:function")
    weights: str = key("", "file with first weights, or 'imagenet' for mobilenet-v2-head", "model.keras")


@dataclass(frozen=True)
class Train:
    """[train]: rounds, and what each chosen device does in one; a model's own compile() says what stands nowhere."""

    rounds: int = key(80, "at most this many")
    cohort: int = key(10, "devices chosen each round, without replacement")
    epochs: int = key(5, "passes over a device's examples")
    batch_size: int = key(10, "examples a step; 0 takes all at once")
    learning_rate: float = key(0.05, "local step size in round 0")
    schedule: str = key("constant", f"over rounds: {' | '.join(SCHEDULES)}")
    decay: float = key(0.98, "exponential: factor a round")
    optimizer: str = key("sgd", " | ".join(OPTIMIZERS))
    momentum: float = key(0.9, "of optimizer 'momentum'")
    loss: str = key("sparse-categorical-crossentropy", " | ".join(LOSSES))
    label_smoothing: float = key(0.0, "cross-entropies: share of every target spread over all classes; 0 is off")
    class_weights: str = key("", "balanced (by federated counts) | a number a class, parted by commas", "balanced")
    clip_gradient_norm: float = key(0.0, "global norm of every step's gradient; 0 is off")
    pruning: PruningPlan = field(default_factory=PruningPlan)
    qat: Qat = field(default_factory=Qat)

    def __post_init__(self) -> None:
        positive("train", rounds=self.rounds, cohort=self.cohort, epochs=self.epochs, decay=self.decay)
        check_row("train.schedule", self.schedule, _SCHEDULES)
        check_row("train.optimizer", self.optimizer, OPTIMIZERS)
        LOSSES.admit(self.loss)
        numbers_in(self.class_weights)
        self.plan(0, from_logits=True)
        check_tuning(self.pruning, self.qat, self.rounds)

    @property
    def settled_round(self) -> int:
        """First round whose model is as small as it shall be; what came before does not count for [stop]."""
        return max(self.pruning.settled_round, self.qat.begin_round, 0)

    def plan(
        self,
        round_num: int,
        *,
        from_logits: bool,
        task: str = CLASSIFICATION,
        class_weights: tuple[float, ...] = (),
    ) -> FitPlan:
        """Returns local training of one round, the learning-rate schedule applied.

        Args:
            task: Row of `fl_mobile.tasks.TASKS`; where ``loss`` is the default and cannot train it, its own is taken.
            class_weights: What the key of that name means with the data's classes; see `class_weights_of`.
        """
        return FitPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * _SCHEDULES[self.schedule](round_num, self),
            optimizer=self.optimizer,
            momentum=self.momentum,
            loss=decided(task, self.loss, Train.loss),
            task=task,
            from_logits=from_logits,
            clip_gradient_norm=self.clip_gradient_norm,
            label_smoothing=self.label_smoothing,
            class_weights=class_weights,
            keep_zeros=self.pruning.prunes_in(round_num),
            fake_quant=self.qat.rounds_in(round_num),
        )


_SCHEDULES: Table[Callable[[int, Train], float]] = Table(
    "schedule",
    FunctionType,
    {
        "constant": lambda t, train: 1.0,
        "cosine": lambda t, train: 0.5 + 0.5 * math.cos(math.pi * t / train.rounds),
        "exponential": lambda t, train: train.decay**t,
        "inverse-sqrt": lambda t, train: 1 / math.sqrt(1 + t),
    },
)


@dataclass(frozen=True)
class Server:
    """[server]: how updates become the next global model."""

    algorithm: str = key("fedavg", " | ".join(ALGORITHMS))
    of_algorithm: Any = chosen("algorithm", ALGORITHMS)
    aggregation: str = key("mean", " | ".join(AGGREGATORS))
    of_aggregation: Any = chosen("aggregation", AGGREGATORS)
    schedule: str = key("constant", f"of the server's step over rounds: {' | '.join(SERVER_SCHEDULES)}")
    of_schedule: Any = chosen("schedule", SERVER_SCHEDULES)
    averaging: str = key("none", f"mean over rounds that is the model: {' | '.join(AVERAGINGS)}")
    of_averaging: Any = chosen("averaging", AVERAGINGS)
    weighting: str = key("examples", " | ".join(WEIGHTINGS))
    max_examples: int = key(10_000, "a device's claimed example count is clamped to this")
    clip_norm: float = key(0.0, "L2 norm every decoded update is clipped to; 0 is off")

    def __post_init__(self) -> None:
        fill_chosen(self, "server")
        self.admission()

    def build(self) -> Algorithm:
        """Returns the algorithm."""
        return ALGORITHMS[self.algorithm].make(self.of_algorithm)

    def rule(self) -> AggregationRow:
        """Returns the aggregation rule."""
        return AGGREGATORS[self.aggregation].with_parameters(self.of_aggregation)

    def averages(self) -> Averaging:
        """Returns which mean over rounds is the model."""
        return Averaging(self.averaging, self.of_averaging)

    def admission(self, max_staleness: int = 0, staleness_exponent: float = 0.5) -> Admission:
        """Returns how much the server believes a packet."""
        return Admission(
            weighting=self.weighting,
            max_examples=self.max_examples,
            clip_norm=self.clip_norm,
            max_staleness=max_staleness,
            staleness_exponent=staleness_exponent,
        )


@dataclass(frozen=True)
class Stop:
    """[stop]: when to end before train.rounds."""

    target_accuracy: float = key(0.0, "stop once test accuracy reaches this; 0 is off")
    patience: int = key(0, "stop after this many rounds without a better validation loss; 0 is off")

    def __post_init__(self) -> None:
        if not 0 <= self.target_accuracy <= 1 or self.patience < 0:
            raise ConfigError(f"stop.target-accuracy must be in [0, 1] and patience ≥ 0, got {self}")


@dataclass(frozen=True)
class Engine:
    """[engine]: what runs the local training. Workers and pools change no byte; another name changes the last bits."""

    name: str = key("auto", f"{' | '.join(ENGINES)}")
    pool: str = key("", f"{' | '.join(POOLS)}: where workers live; empty is what the engine needs", "threads")
    workers: int = key(0, "0 is one per core")
    ray_address: str = key("", "ray: auto joins the cluster here, or HOST:PORT; empty starts one here", "auto")

    def __post_init__(self) -> None:
        check_known("engine.name", self.name, ENGINES)
        pools = ENGINES[self.name].pools
        if self.pool not in ("", *pools):
            raise ConfigError(f"engine.pool must be {' or '.join(pools)} for '{self.name}', got '{self.pool}'")
        if self.ray_address and (self.pool or pools[0]) != "ray":
            raise ConfigError(f"engine.ray-address is only for engine.name or engine.pool ray, got '{self.name}'")
        if self.workers < 0:
            raise ConfigError(f"engine.workers must be ≥ 0, got {self.workers}")


@dataclass(frozen=True)
class Output:
    """[output]: what a run leaves behind."""

    timeline_rounds: int = key(20, "rounds whose devices' times are kept for `fl-mobile report`, spread over the run")
    keep_updates: int = key(8, "client updates stored for `fl-mobile measure`, spread over the run")
    recipes: tuple[str, ...] = key(
        ("float32", "float16", "dynamic-int8", "int8"), "TFLite variants exported at the end; [] exports none"
    )
    sign: str = key("", "private key of `fl-mobile keys new` that signs the bundle", "keys/release.pem")
    keep: str = key(LAST, f"{' | '.join(KEEP)}: round whose model is model.keras and exported")
    keep_by: str = key("accuracy", f"best by what: {' | '.join(METRICS)}, or one of output.metrics")
    metrics: tuple[str, ...] = key(
        (), "told beside the task's own at every evaluation, e.g. package.module:NAME", ("macro-f1",)
    )
    license: str = key("", "of the model, for its card", "MIT")
    tuning_data: str = key(
        "", "what sparse-, clustered- and qat- recipes train on: a dataset's name or an .npz file", "digits"
    )
    tuning_origin: str = key("public", f"whose those examples are: {' | '.join(ORIGINS)}")
    tuning_epochs: int = key(6, "passes over them in every stage of a tuning")

    def __post_init__(self) -> None:
        if self.keep_updates < 0:
            raise ConfigError(f"output.keep-updates must be ≥ 0, got {self.keep_updates}")
        if self.timeline_rounds < 0:
            raise ConfigError(f"output.timeline-rounds must be ≥ 0, got {self.timeline_rounds}")
        check_known("output.keep", self.keep, KEEP)
        if len(set(self.metrics)) != len(self.metrics):
            raise ConfigError(f"output.metrics: each name once, got {', '.join(self.metrics)}")
        for name in self.metrics:
            check_row("output.metrics", name, TOLD)
        check_known("output.keep-by", self.keep_by, [*METRICS, *self.metrics])
        self._check_recipes()
        if self.tuning_data and not self.tuning_data.endswith(".npz") and self.tuning_data not in DATASETS:
            raise ConfigError(
                f"output.tuning-data '{self.tuning_data}' is no dataset and no .npz file."
                f"{nearest(self.tuning_data, DATASETS)}"
            )
        if self.tuning_origin not in ORIGINS:
            raise ConfigError(
                f"unknown output.tuning-origin '{self.tuning_origin}'.{nearest(self.tuning_origin, ORIGINS)}"
            )
        positive("output", tuning_epochs=self.tuning_epochs)

    def _check_recipes(self) -> None:
        if len(set(self.recipes)) != len(self.recipes):
            raise ConfigError(f"output.recipes: each name once, got {', '.join(self.recipes)}")
        try:
            tuned = [row for row in map(asked_for, self.recipes) if row.tuning]
        except ConfigError as error:
            raise ConfigError(f"output.recipes: {error}") from None
        if tuned and not self.tuning_data:
            raise ConfigError(
                f"output.recipes: {tuned[0].name!r} trains the model further and needs examples that are not the"
                f" devices'. Name them with output.tuning-data, or take {tuned[0].conversion!r}."
            )


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on. Sections are tables of the TOML file."""

    seed: int = key(0, "same seed, same packets, same final model")
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    server: Server = field(default_factory=Server)
    upload: Upload = field(default_factory=Upload)
    download: Download = field(default_factory=Download)
    fleet: Fleet = field(default_factory=Fleet)
    selection: Selection = field(default_factory=Selection)
    policy: UpdatePolicy = field(default_factory=UpdatePolicy)
    clock: Clock = field(default_factory=Clock)
    personal: Personal = field(default_factory=Personal)
    attack: AttackPlan = field(default_factory=AttackPlan)
    privacy: Privacy = field(default_factory=Privacy)
    masks: Masks = field(default_factory=Masks)
    evaluation: Evaluation = field(default_factory=Evaluation)
    stop: Stop = field(default_factory=Stop)
    engine: Engine = field(default_factory=Engine)
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        check_finite(self)
        for name, idle in idle_keys(self).items():
            if not is_default(self, name):
                raise ConfigError(idle.refusal(name, self))
        check_crossings(self)

    @property
    def private_releases(self) -> int:
        """Sums that are released under [privacy]: one a round, and one before them where devices tell statistics."""
        return self.train.rounds + self.sums_before

    @property
    def sums_before(self) -> int:
        """How many of them come before round 1."""
        return int(self.privacy.central and self.data.standardize == FEDERATED)

    def admission(self, max_staleness: int) -> Admission:
        """Returns how much the server believes a packet."""
        if self.privacy.on:  # the sum clips by itself; what a device says of its examples is nobody's business
            return Admission(weighting="uniform")
        if self.masks.on:  # nobody could check a weight, or a norm, that only its device knows
            return Admission(weighting="uniform")
        return self.server.admission(max_staleness, self.clock.staleness_exponent)

    @property
    def weighs_examples(self) -> bool:
        """Whether the server weighs updates by how many examples they stand on."""
        return self.admission(0).weighting == "examples" and self.server.rule().mean

    def codec_of_uploads(self, spec: Spec | None = None) -> tuple[Codec, str]:
        """Returns the codec of uploads and why it was chosen; without the model's spec as far as the keys tell."""
        up, clipped = self.upload, self.privacy.central
        return choose(up.codec, up.target, spec, masked=self.masks.on, clipped=clipped)


def experiment_hash(experiment: Experiment) -> str:
    """Returns SHA-256 over all that decides the trained model.

    Not the output, and of [engine] only which trainer computes: trainers differ in the last bits of a sum, while
    workers, pools and clusters change no byte. Rows of one's own count by the source that they are in.
    """
    decisive = asdict(experiment) | {"output": asdict(Output())}
    trainers = ENGINES[experiment.engine.name].trainers
    # ray trains as auto does: a run can go on without its cluster.
    decisive["engine"] = next(name for name, row in ENGINES.items() if row.trainers is trainers)
    if sources := sources_of(experiment):
        decisive["sources"] = sources
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def sources_of(experiment: Experiment) -> dict[str, str]:
    """Returns, for each ``package.module:name`` that decides model or rounds, the hash of its file; runs none.

    Recipes of one's own decide neither: a finished run is exported by any.
    """
    section, codecs = asdict(experiment) | {"output": {}}, (experiment.upload.codec, experiment.download.codec)
    named = {
        name
        for values in section.values()
        if isinstance(values, dict)
        for name in values.values()
        if isinstance(name, str)
    }.union(experiment.output.metrics)
    named = named.difference(codecs).union(*map(part_names, codecs))
    found = {name: source_sha256(name) for name in sorted(filter(is_own, named))}
    installed = {name: registered(kind, name) for kind, name in own_rows() if name in named}
    return found | {name: source_sha256(point.value) for name, point in installed.items() if point}
