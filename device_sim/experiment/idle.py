"""Keys that do nothing beside what another key says: one table, so that nobody tunes a number that is never read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from device_sim.client_data.partition import PARTITIONERS
from device_sim.datasets import DATASETS
from device_sim.datasets.records import WORDS
from device_sim.datasets.scaling import FEDERATED, PUBLIC
from device_sim.experiment.privacy import CENTRAL, DISTRIBUTED, LOCAL, Privacy
from fl_mobile.algorithms import Algorithm
from fl_mobile.records import FitPlan


@dataclass(frozen=True)
class Idle:
    """Keys that are read only where another key says so.

    Attributes:
        keys: Dotted.
        by: Keys that decide; the first is named in messages.
        works: Experiment, or its sections by name → whether the keys are read.
        told: With which values of ``by[0]`` they are.
    """

    keys: tuple[str, ...]
    by: tuple[str, ...]
    works: Callable[[Any], bool]
    told: str

    def refusal(self, key: str, experiment: Any) -> str:
        """Returns why ``key`` is refused."""
        return f"{key} does nothing with {self.by[0]} {value_of(experiment, self.by[0])!r}; it is read with {self.told}"


def _dealt(knob: str) -> Idle:
    reading = [name for name, row in PARTITIONERS.items() if knob in row.reads]
    if knob == "alpha":
        reading.append("on-demand")
    return Idle(
        keys=(f"data.{knob.replace('_', '-')}",),
        by=("data.partition",),
        works=lambda e: (
            (name := e.data.partition or "dirichlet") in reading
            or (name in PARTITIONERS and knob in PARTITIONERS[name].reads)
        ),
        told=", ".join(reading),
    )


def _counts_steps(algorithm: Algorithm) -> bool:
    """Whether a client's claim about examples says how many steps it made, whatever it weighs."""
    return algorithm.per_step or algorithm.variate is not None


IDLE: tuple[Idle, ...] = (
    _dealt("alpha"),
    _dealt("shards_per_device"),
    Idle(
        keys=("data.examples-per-device",),
        by=("data.partition",),
        works=lambda e: e.data.partition == "on-demand",
        told="on-demand",
    ),
    Idle(
        keys=("data.min-examples",),
        by=("data.partition",),
        works=lambda e: e.data.partition != "on-demand",
        told="every partition of a dataset",
    ),
    Idle(
        keys=("data.test-fraction",),
        by=("data.dataset",),
        works=lambda e: e.data.dataset not in DATASETS or DATASETS[e.data.dataset].split == "stratified",
        told="datasets that have no test part of their own",
    ),
    Idle(
        keys=("data.vocabulary", "data.words"),
        by=("data.tokens",),
        works=lambda e: e.data.tokens == WORDS,
        told="words",
    ),
    Idle(
        keys=("data.scaling",),
        by=("data.standardize", "privacy.mode"),
        works=lambda e: e.data.standardize in (PUBLIC, FEDERATED),
        told="public; a run that is served, or under [privacy], writes there what its devices' sums say",
    ),
    Idle(
        keys=("data.ranges",),
        by=("data.standardize", "privacy.mode"),
        works=lambda e: e.data.standardize == FEDERATED and e.privacy.central,
        told="federated and privacy.mode central, where sums are cut off at them",
    ),
    *(
        Idle(
            keys=(f"train.{key.replace('_', '-')}",),
            by=("server.algorithm",),
            works=lambda e, key=key, odd=odd: getattr(e.server.build().plan(FitPlan(**{key: odd})), key) == odd,  # type: ignore[misc]
            told="algorithms that leave it as it is",
        )
        for key, odd in (("epochs", 7), ("batch_size", 7), ("optimizer", "adam"))
    ),
    Idle(
        keys=("train.decay",),
        by=("train.schedule",),
        works=lambda e: e.train.schedule == "exponential",
        told="exponential",
    ),
    Idle(
        keys=("train.momentum",),
        by=("train.optimizer", "server.algorithm"),
        works=lambda e: e.train.optimizer == "momentum",
        told="momentum",
    ),
    Idle(
        keys=tuple(
            f"train.pruning.{key}" for key in ("begin-round", "end-round", "schedule", "zero-run", "smallest-kernel")
        ),
        by=("train.pruning.sparsity",),
        works=lambda e: e.train.pruning.sparsity > 0,
        told="a share above 0",
    ),
    Idle(
        keys=("server.weighting", "server.max-examples", "server.clip-norm"),
        by=("privacy.mode",),
        works=lambda e: not e.privacy.on,
        told="none; under privacy every update is clipped to privacy.clip-norm and counts once",
    ),
    Idle(
        keys=("server.weighting", "server.max-examples", "server.clip-norm"),
        by=("masks.group",),
        works=lambda e: not e.masks.on,
        told="0; under masks every device counts once, and the server sees no update that it could clip",
    ),
    Idle(
        keys=("masks.dropouts",),
        by=("masks.group",),
        works=lambda e: e.masks.on,
        told="a group, e.g. 100",
    ),
    Idle(
        keys=("server.weighting",),
        by=("server.aggregation",),
        works=lambda e: e.server.rule().mean,
        told="mean; other rules give every update the same say",
    ),
    Idle(
        keys=("server.max-examples",),
        by=("server.weighting", "server.aggregation"),
        works=lambda e: (e.server.weighting == "examples" and e.server.rule().mean) or _counts_steps(e.server.build()),
        told="examples and server.aggregation mean, and with algorithms that count steps",
    ),
    Idle(
        keys=("fleet.start-hour", "fleet.time-zones"),
        by=("fleet.availability",),
        works=lambda e: e.fleet.availability == "diurnal",
        told="diurnal",
    ),
    Idle(
        keys=("fleet.charging", "fleet.idle", "fleet.min-battery"),
        by=("fleet.availability",),
        works=lambda e: e.fleet.availability == "diurnal",
        told="diurnal; phones of the others charge unused whenever they are there",
    ),
    Idle(
        keys=("fleet.availability-file",),
        by=("fleet.availability",),
        works=lambda e: e.fleet.availability == "trace",
        told="trace",
    ),
    Idle(
        keys=("clock.buffer", "clock.max-staleness", "clock.staleness-exponent"),
        by=("clock.mode",),
        works=lambda e: e.clock.mode == "asynchronous",
        told="asynchronous",
    ),
    Idle(
        keys=("personal.epochs", "personal.learning-rate"),
        by=("personal.method",),
        works=lambda e: e.personal.method != "none",
        told="a method",
    ),
    Idle(
        keys=("personal.mu",),
        by=("personal.method",),
        works=lambda e: e.personal.method == "ditto",
        told="ditto",
    ),
    Idle(
        keys=("attack.share",),
        by=("attack.name",),
        works=lambda e: e.attack.name != "none",
        told="an attack",
    ),
    Idle(
        keys=tuple(f"privacy.{f.name.replace('_', '-')}" for f in fields(Privacy) if f.name != "mode"),
        by=("privacy.mode",),
        works=lambda e: e.privacy.on,
        told=f"{CENTRAL}, {DISTRIBUTED} or {LOCAL}",
    ),
    Idle(
        keys=("privacy.sampling",),
        by=("privacy.mode",),
        works=lambda e: not e.privacy.of_devices,
        told=f"{CENTRAL}; noise of devices assumes nothing of who takes part",
    ),
    Idle(
        keys=("privacy.clip-rate", "privacy.count-noise"),
        by=("privacy.clip-quantile", "privacy.mode"),
        works=lambda e: e.privacy.clip_quantile > 0,
        told="a quantile above 0",
    ),
    Idle(
        keys=("evaluation.devices",),
        by=("evaluation.device-test-fraction",),
        works=lambda e: e.evaluation.device_test_fraction > 0,
        told="a share above 0",
    ),
    Idle(
        keys=("output.tuning-origin", "output.tuning-epochs"),
        by=("output.tuning-data",),
        works=lambda e: bool(e.output.tuning_data),
        told="examples to tune on",
    ),
)
"""Parameters of rows (algorithms, aggregation rules, samplers, policies) need no line here: their rows declare them.
Options of datasets neither: a dataset refuses those it does not read."""


def idle_keys(experiment: Any) -> dict[str, Idle]:
    """Returns the keys that do nothing in an experiment, or in sections by name that are to become one."""
    found: dict[str, Idle] = {}
    for row in IDLE:
        for key in row.keys if not row.works(experiment) else ():
            found.setdefault(key, row)
    return found


def value_of(experiment: Any, key: str) -> Any:
    """Returns the value of a dotted key."""
    for name in key.replace("-", "_").split("."):
        experiment = getattr(experiment, name)
    return experiment


def default_of(kind: type, name: str) -> Any:
    """Returns the default of a field of a section."""
    found = next(f for f in fields(kind) if f.name == name)
    if found.default is MISSING and found.default_factory is not MISSING:
        return found.default_factory()
    return found.default


def is_default(experiment: Any, key: str) -> bool:
    """Returns whether a dotted key has its default."""
    path, _, name = key.replace("-", "_").rpartition(".")
    section = value_of(experiment, path)
    return bool(getattr(section, name) == default_of(type(section), name))


def without(sections: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns sections by name with the default for a dotted key."""
    first, *rest = key.replace("-", "_").split(".")
    return {**sections, first: _reset(sections[first], rest)}


def _reset(section: Any, path: list[str]) -> Any:
    name, *rest = path
    value = _reset(getattr(section, name), rest) if rest else default_of(type(section), name)
    return replace(section, **{name: value})
