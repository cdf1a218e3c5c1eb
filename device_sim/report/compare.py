"""What differs between runs: the keys of their experiments, and where they got to, paired round by round."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from device_sim.experiment.toml import all_keys, values_by_key
from device_sim.report.runs import Run
from device_sim.report.series import score_pairs, total_bytes
from device_sim.run.log import scores_of

FINAL_ROUNDS = 10
"""Final accuracy is the mean over so many last evaluated rounds: single rounds of non-IID training jump by a point."""
COHORT_KEYS = ("seed", "train.cohort", "data.", "fleet.", "selection.", "policy.", "clock.")
"""Runs that differ in one of these choose other devices, or give them other examples."""


@dataclass(frozen=True)
class KeyDifference:
    """A key of the experiment and every run's value of it, as TOML writes it."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Reached:
    """The end of the first round whose accuracy is at least the target, and what had been spent by then."""

    round_num: int
    total_bytes: int
    sim_seconds: float
    joules: float


@dataclass(frozen=True)
class Paired:
    """A run beside the first one, over the rounds both have.

    Attributes:
        rounds: How many those are.
        accuracy_points: Mean of this accuracy minus the first run's, in points, over the last `FINAL_ROUNDS` of them in
            which both were evaluated; None if in none.
        accuracy_points_sd: Standard deviation of these differences; 0 for a single round.
        bytes_share: Bytes up and down over those rounds, divided by the first run's; None if that is 0.
        seconds_share: The same of simulated time.
        joules_share: The same of energy.
        reached: Where this run reached the target; None if it never did.
    """

    label: str
    rounds: int
    accuracy_points: float | None
    accuracy_points_sd: float
    bytes_share: float | None
    seconds_share: float | None
    joules_share: float | None
    reached: Reached | None


def points_of(line: Paired) -> tuple[str, str]:
    """Returns difference in points and its standard deviation, as told in tables."""
    if line.accuracy_points is None:
        return "–", "–"
    return f"{line.accuracy_points:+.2f}", f"{line.accuracy_points_sd:.2f}"


def key_differences(runs: Sequence[Run]) -> list[KeyDifference]:
    """Returns the keys in which not all experiments agree, in file order."""
    values = [values_by_key(run.experiment) for run in runs]
    return [
        KeyDifference(key, tuple(json.dumps(v[key], ensure_ascii=False) if key in v else "–" for v in values))
        for key in all_keys()
        if any(v.get(key) != values[0].get(key) for v in values)
    ]


def unpaired_keys(differences: Sequence[KeyDifference]) -> list[str]:
    """Returns the differing keys because of which equal rounds do not stand for the same devices and examples."""
    return [d.key for d in differences if d.key.startswith(COHORT_KEYS)]


def target_accuracy(first: Run) -> float:
    """Returns the accuracy whose price is compared: the first run's final one, 0 to 1."""
    return statistics.fmean(score.accuracy for score in scores_of(first.rounds)[-FINAL_ROUNDS:])


def paired(runs: Sequence[Run]) -> list[Paired]:
    """Returns one line a run; the first is compared with itself."""
    first, target = runs[0], target_accuracy(runs[0])
    return [_paired(first, run, target) for run in runs]


def _paired(first: Run, run: Run, target: float) -> Paired:
    count = min(len(first.rounds), len(run.rounds))
    a, b = first.rounds[:count], run.rounds[:count]
    points = [100 * (y.accuracy - x.accuracy) for x, y in score_pairs(a, b)][-FINAL_ROUNDS:]
    return Paired(
        label=run.label,
        rounds=count,
        accuracy_points=statistics.fmean(points) if points else None,
        accuracy_points_sd=statistics.stdev(points) if len(points) > 1 else 0.0,
        bytes_share=_share(total_bytes(b)[-1], total_bytes(a)[-1]),
        seconds_share=_share(b[-1].sim_seconds, a[-1].sim_seconds),
        joules_share=_share(sum(r.joules for r in b), sum(r.joules for r in a)),
        reached=_reach(run, target),
    )


def _reach(run: Run, target: float) -> Reached | None:
    for at, (done, spent) in enumerate(zip(run.rounds, total_bytes(run.rounds), strict=True)):
        if done.accuracy is not None and done.accuracy >= target:
            return Reached(done.round_num, spent, done.sim_seconds, sum(r.joules for r in run.rounds[: at + 1]))
    return None


def _share(mine: float, first: float) -> float | None:
    return mine / first if first else None
