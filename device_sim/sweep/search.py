"""Which trial comes next: a fixed list, or Optuna asked and told. Same seed and same answers, same questions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_sim.experiment.toml import to_toml
from device_sim.sweep.plan import BASE, Range, SweepPlan, Trial, Value, label_of
from device_sim.sweep.results import OBJECTIVES, Scores
from fl_mobile.errors import ConfigError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Asked

GENERATION = 10
"""Trials per generation of NSGA-II: sweeps have dozens of trials, not the thousands its usual 50 is made for."""


@dataclass(frozen=True)
class Search:
    """A sequence of trials that may depend on how the earlier ones did.

    Attributes:
        ask: Returns the next trial.
        tell: Takes the scores of the trial asked for last; None if it failed.
        count: How many there are.
        known: Those that are certain before anything has run.
    """

    ask: Callable[[], Trial]
    tell: Callable[[Scores | None], None]
    count: int
    known: tuple[Trial, ...]


def open_search(plan: SweepPlan) -> Search:
    """Returns the plan's search: trial 0 is the base, then come its sampler's.

    Raises:
        ConfigError: Optuna is needed and not installed.
    """
    if plan.sampler == "grid":
        return listed([BASE, *grid(plan)])
    return _asking_optuna(plan)


def listed(trials: Sequence[Trial]) -> Search:
    """Returns a search through trials that are known beforehand."""
    left = iter(trials)
    return Search(lambda: next(left), lambda scores: None, len(trials), tuple(trials))


def grid(plan: SweepPlan) -> Iterator[Trial]:
    """Yields every combination, the last key running fastest, but for the one that is the base itself."""
    ladders = [c.ladder() if isinstance(c, Range) else c for c in plan.space.values()]
    for values in itertools.product(*ladders):
        params = dict(zip(plan.space, values, strict=True))
        if not _is_base(plan, params):
            yield Trial(label_of(params), params)


def _is_base(plan: SweepPlan, params: dict[str, Value]) -> bool:
    try:
        return to_toml(plan.experiments(Trial("", params))[0]) == to_toml(plan.experiments(BASE)[0])
    except ConfigError:  # not valid together: a trial of its own, which will fail and say why
        return False


def _asking_optuna(plan: SweepPlan) -> Search:
    try:
        import optuna
    except ImportError:
        raise ConfigError(f"sampler {plan.sampler} needs Optuna: pip install 'fl-mobile[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up if OBJECTIVES[name].larger_is_better else down for name in plan.objectives]
    study = optuna.create_study(sampler=_sampler(plan), directions=directions)
    asked: list[Asked] = []
    started = iter([BASE])

    def ask() -> Trial:
        if (base := next(started, None)) is not None:
            return base
        asked.append(study.ask())
        params = {key: _suggest(asked[-1], key, choices) for key, choices in plan.space.items()}
        return Trial(label_of(params), params)

    def tell(scores: Scores | None) -> None:
        if not asked:
            return  # the base need not lie inside the space that is searched
        if scores is None:
            study.tell(asked[-1], state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked[-1], [OBJECTIVES[name].of(scores) for name in plan.objectives])

    return Search(ask, tell, 1 + plan.trials, (BASE,))


def _sampler(plan: SweepPlan) -> BaseSampler:
    from optuna import samplers

    table: dict[str, Callable[[], BaseSampler]] = {
        "random": lambda: samplers.RandomSampler(seed=plan.sampler_seed),
        # Bergstra et al. 2011; with two objectives and more, Ozaki et al. 2020.
        "tpe": lambda: samplers.TPESampler(seed=plan.sampler_seed),
        # NSGA-II, Deb et al. 2002.
        "pareto": lambda: samplers.NSGAIISampler(seed=plan.sampler_seed, population_size=GENERATION),
    }
    return table[plan.sampler]()


def _suggest(asked: Asked, key: str, choices: Range | tuple[Value, ...]) -> Any:
    if not isinstance(choices, Range):
        return asked.suggest_categorical(key, choices)
    if choices.whole:
        return asked.suggest_int(key, int(choices.low), int(choices.high), step=int(choices.step or 1), log=choices.log)
    return asked.suggest_float(key, choices.low, choices.high, step=choices.step, log=choices.log)
