"""What a sweep searches: the frozen records of a SWEEP.toml, and the trials they stand for.

```toml
base = "experiment.toml"          # beside this file; left out, the defaults
seeds = 3                         # 0, 1, 2: the same cohorts and batches in every trial
sampler = "tpe"                   # grid | random | tpe | pareto
trials = 40                       # beside trial 0, the base itself; a grid has as many as it has combinations
objectives = ["accuracy", "total-bytes"]
[experiment.train]                # keys of an experiment, changed in the base
rounds = 20
[search]                          # any key: a list of choices, or a range
"train.learning-rate" = { low = 0.01, high = 0.3, log = true }
"train.epochs" = { low = 1, high = 5 }
"upload.codec" = ["ecsq", "q8+deflate", "topk:0.01+q8+deflate"]
```
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import all_keys, as_toml, parse_experiment, to_toml
from device_sim.sweep.results import OBJECTIVES
from fl_mobile.errors import ConfigError, nearest

Value = str | int | float | bool
SAMPLERS = ("grid", "random", "tpe", "pareto")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        log: Spread evenly over orders of magnitude.
        step: Distance between neighbours; None is 1 for whole numbers, and none for others.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            if (value := getattr(self, name)) is not None and not abs(value) < 2**63:
                raise ConfigError(f"{name} must be a finite number below 2^63, got {value!r:.60}")
        if not self.low < self.high:
            raise ConfigError(f"low must be below high, got low = {self.low}, high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ConfigError(f"log = true needs low above 0 and no step, got low = {self.low}, step = {self.step}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ConfigError(f"step must be above 0 and at most high - low, got {self.step}")
        if self.whole and self.step is not None and type(self.step) is not int:
            raise ConfigError(f"step must be a whole number between whole numbers, got {self.step}")

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return type(self.low) is int and type(self.high) is int

    def ladder(self) -> tuple[float, ...]:
        """Returns every value there is.

        Raises:
            ConfigError: There is no end of them.

        >>> Range(0.1, 0.4, step=0.1).ladder()
        (0.1, 0.2, 0.3, 0.4)
        """
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise ConfigError("a grid needs a list of values, or a range with a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + i * step if self.whole else float(f"{self.low + i * step:.12g}") for i in range(count))


Space = Mapping[str, Range | tuple[Value, ...]]


@dataclass(frozen=True)
class Trial:
    """One point of the sweep.

    Attributes:
        label: Names it in tables and folders.
        params: Key → value, where it differs from the base.
    """

    label: str
    params: Mapping[str, Value]

    def changes(self) -> list[str]:
        """Returns the trial as --set options."""
        return [f"{key}={as_toml(value)}" for key, value in self.params.items()]


KEPT = 2
"""Updates that the first seed of a trial keeps, to be measured by kind of tensor."""

BASE = Trial("base", {})


@dataclass(frozen=True)
class SweepPlan:
    """A whole SWEEP.toml, checked; see the top of this file for its keys."""

    base: Experiment
    space: Space
    seeds: int = 3
    sampler: str = "tpe"
    trials: int = 20
    sampler_seed: int = 0
    objectives: tuple[str, ...] = ("accuracy", "total-bytes")
    where: str = field(default="sweep", compare=False)

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"{self.where}: unknown sampler '{self.sampler}'.{nearest(self.sampler, SAMPLERS)}")
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError(f"{self.where}: unknown objective '{name}'.{nearest(name, OBJECTIVES)}")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ConfigError(f"{self.where}: objectives must be one or more different names, got {self.objectives}")
        if self.sampler == "pareto" and len(self.objectives) < 2:
            raise ConfigError(f"{self.where}: sampler pareto needs two objectives or more; use tpe for one")
        if self.seeds < 1 or self.trials < 1 or self.sampler_seed < 0:
            raise ConfigError(f"{self.where}: seeds and trials must be at least 1, and sampler-seed at least 0")
        if not self.space:
            raise ConfigError(f"{self.where}: [search] names no key, so there is nothing to search")
        for key, choices in self.space.items():
            _check_key(key, choices, self)

    def experiments(self, trial: Trial) -> list[Experiment]:
        """Returns the trial's experiment for every seed.

        Raises:
            ConfigError: The values do not go together.
        """
        return experiments_of(self.base, trial, range(self.seeds))


def experiments_of(base: Experiment, trial: Trial, seeds: Sequence[int]) -> list[Experiment]:
    """Returns ``base`` with a trial's changes, once for every seed; raw updates are kept of the first alone, a few.

    Raises:
        ConfigError: The values do not go together.
    """
    text = to_toml(base)
    each = [[*trial.changes(), f"seed={seed}", f"output.keep-updates={KEPT * (seed == 0)}"] for seed in seeds]
    try:
        return [parse_experiment(text, changes, where="base", searched=len(trial.params) > 1) for changes in each]
    except ConfigError as error:  # lines of the resolved base are nothing that the user wrote
        raise ConfigError(re.sub(r"^(--set |base(, line \d+)?: )", "", str(error))) from None


def label_of(params: Mapping[str, Value]) -> str:
    """Returns what a trial is called: its keys and values, in the order of the search; not exact.

    >>> label_of({"train.epochs": 2, "upload.codec": "q8+deflate"})
    'train.epochs=2;upload.codec=q8+deflate'
    """
    return ";".join(f"{key}={short(value)}" for key, value in params.items())


def short(value: object) -> str:
    """Returns a searched value as a person would write it.

    >>> short(0.08231734), short(5), short("q8+deflate")
    ('0.0823', '5', 'q8+deflate')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_key(key: str, choices: Range | tuple[Value, ...], plan: SweepPlan) -> None:
    where = f'{plan.where}: [search] "{key}"'
    if key not in all_keys():
        raise ConfigError(f"{where}: unknown key.{nearest(key, all_keys())}")
    if key == "seed":
        raise ConfigError(f"{where}: every trial has the same seeds, so that pairs differ in nothing else; set seeds")
    if isinstance(choices, tuple):
        if not choices or len(set(choices)) < len(choices):
            raise ConfigError(f"{where}: give different choices, at least one, got {list(choices)}")
        values: tuple[Value, ...] = choices
    else:
        values = choices.low, choices.high
        if plan.sampler == "grid":
            try:
                choices.ladder()
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
    for value in values:
        _check_value(key, value, plan, where)


def _check_value(key: str, value: Value, plan: SweepPlan, where: str) -> None:
    """Raises unless the value is valid in the base, or together with one other searched value."""
    others: list[dict[str, Value]] = [
        {other: held}
        for other, choices in plan.space.items()
        if other != key
        for held in (choices if isinstance(choices, tuple) else (choices.low, choices.high))
    ]
    first: ConfigError | None = None
    for together in ({}, *others):
        try:
            experiments_of(plan.base, Trial(key, {**together, key: value}), [0])
            return
        except ConfigError as error:
            first = first or error
    raise ConfigError(f"{where}: {first}")


def as_json(plan: SweepPlan) -> dict[str, Any]:
    """Returns the plan in JSON types, for results that say what made them."""
    space = {
        key: list(choices)
        if isinstance(choices, tuple)
        else {"low": choices.low, "high": choices.high, "log": choices.log, "step": choices.step}
        for key, choices in plan.space.items()
    }
    return {
        "experiment": to_toml(plan.base),
        "seeds": plan.seeds,
        "sampler": plan.sampler,
        "sampler_seed": plan.sampler_seed,
        "objectives": list(plan.objectives),
        "search": space,
    }
