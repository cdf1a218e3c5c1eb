"""Trials in numbers: means over paired seeds, differences to trial 0, the Pareto front, and the one to take."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_sim.run.log import Round, scores_of
from fl_mobile.measurements.front import pareto_front

FINAL_ROUNDS = 10
"""Accuracy of a run is the mean over its last evaluated rounds: single rounds of non-IID training jump by a point."""

Runs = Sequence[Sequence[Round]]
"""The rounds of one trial, seed by seed."""


@dataclass(frozen=True)
class Scores:
    """One finished trial; means over seeds unless said otherwise.

    Attributes:
        accuracy: Mean over the last `FINAL_ROUNDS` rounds, 0 to 1.
        accuracy_sd: Standard deviation over seeds; 0 for one seed.
        loss: Held-out loss, mean over the last `FINAL_ROUNDS` rounds.
        difference: Accuracy minus trial 0's, paired by seed, in points.
        difference_sd: Its standard deviation over seeds.
        upload_bytes: Mean packet length.
        upload_ratio: fp32 bytes / mean packet length.
        download_ratio: fp32 bytes / mean download.
        total_bytes: Up and down, all devices, whole run.
        total_bytes_sd: Its standard deviation over seeds.
        rounds_to_target: First round whose accuracy reaches the target, per seed; None where it never does.
        bytes_to_target: Up and down until then, per seed.
    """

    accuracy: float
    accuracy_sd: float
    loss: float
    difference: float
    difference_sd: float
    upload_bytes: float
    upload_ratio: float
    download_ratio: float
    total_bytes: float
    total_bytes_sd: float
    rounds_to_target: tuple[int | None, ...]
    bytes_to_target: tuple[int | None, ...]


@dataclass(frozen=True)
class Objective:
    """What a search wants.

    Attributes:
        larger_is_better: Otherwise smaller is.
        of: Reads it off the scores.
        told: What it is, for the axis of a plot.
    """

    larger_is_better: bool
    of: Callable[[Scores], float]
    told: str

    def cost(self, scores: Scores) -> float:
        """Returns the value, turned so that smaller is better."""
        return -self.of(scores) if self.larger_is_better else self.of(scores)


OBJECTIVES: dict[str, Objective] = {
    "accuracy": Objective(True, lambda s: s.accuracy, f"accuracy, mean of last {FINAL_ROUNDS} rounds"),
    "loss": Objective(False, lambda s: s.loss, f"held-out loss, mean of last {FINAL_ROUNDS} rounds"),
    "upload-bytes": Objective(False, lambda s: s.upload_bytes, "bytes of one upload, the whole packet"),
    "total-bytes": Objective(False, lambda s: s.total_bytes, "bytes up and down, all devices, whole run"),
}


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        number: 0 is the one that others are compared with.
        folder: Where its runs are, below the sweep's folder.
        failure: Why there are no scores; empty if there are.
        by_kind: What each kind of tensor costs of an upload of seed 0, as `fl_mobile.measurements.kinds.OfKind`.
    """

    number: int
    label: str
    params: Mapping[str, Any]
    folder: str
    failure: str
    scores: Scores | None
    by_kind: tuple[Mapping[str, Any], ...] = ()


def score(runs: Runs, reference: Runs, target_accuracy: float | None = None) -> Scores:
    """Returns one trial's numbers.

    Args:
        runs: Rounds per seed, at least one round each.
        reference: Trial 0's rounds for the same seeds.
        target_accuracy: For ``bytes_to_target``; None takes, seed by seed, trial 0's own final accuracy.
    """
    played = [done for rounds in runs for done in rounds]
    uploads, up = sum(r.uploads for r in played), sum(r.upload_bytes for r in played)
    down = sum(r.download_bytes for r in played)
    fp32_bytes = round(next((r.ratio * r.upload_bytes / r.uploads for r in played if r.ratio), 0.0))
    accuracy, wanted = ([_final(rounds) for rounds in each] for each in (runs, reference))
    differences = [100 * (mine - other) for mine, other in zip(accuracy, wanted, strict=True)]
    targets = wanted if target_accuracy is None else [target_accuracy] * len(runs)
    reached = [_reach(rounds, target) for rounds, target in zip(runs, targets, strict=True)]
    total = [sum(r.upload_bytes + r.download_bytes for r in rounds) for rounds in runs]
    return Scores(
        accuracy=statistics.fmean(accuracy),
        accuracy_sd=_sd(accuracy),
        loss=statistics.fmean(score.loss for rounds in runs for score in scores_of(rounds)[-FINAL_ROUNDS:]),
        difference=statistics.fmean(differences),
        difference_sd=_sd(differences),
        upload_bytes=up / max(1, uploads),
        upload_ratio=fp32_bytes * uploads / max(1, up),
        download_ratio=fp32_bytes * sum(r.downloads for r in played) / max(1, down),
        total_bytes=statistics.fmean(total),
        total_bytes_sd=_sd(total),
        rounds_to_target=tuple(number for number, _ in reached),
        bytes_to_target=tuple(count for _, count in reached),
    )


def front_of(results: Sequence[TrialResult], objectives: Sequence[str]) -> list[TrialResult]:
    """Returns the trials on the Pareto front of the objectives, by the cost of the last one."""
    costs = {r.number: _costs(r.scores, objectives) for r in results if r.scores}
    return pareto_front((r for r in results if r.number in costs), lambda r: costs[r.number])


def best(results: Sequence[TrialResult], objectives: Sequence[str], seeds: int) -> TrialResult | None:
    """Returns the trial to take, or None if all failed.

    With one objective, the best mean. With more, the one-standard-error rule (Breiman et al. 1984, section 3.4.3):
    of the trials whose accuracy is no more than one standard error below the best one's, that with the lowest cost in
    the objectives after the first; a difference inside the noise is not worth bytes. Objectives other than accuracy
    have no error here, so with another one first its best mean wins.
    """
    finished = [(r, r.scores) for r in results if r.scores]
    if not finished:
        return None
    first = OBJECTIVES[objectives[0]]
    _, top = min(finished, key=lambda pair: first.cost(pair[1]))
    slack = top.accuracy_sd / math.sqrt(seeds) if objectives[0] == "accuracy" and len(objectives) > 1 else 0.0
    good = [(r, s) for r, s in finished if first.cost(s) <= first.cost(top) + slack]
    return min(good, key=lambda pair: (*_costs(pair[1], objectives[1:]), first.cost(pair[1]), pair[0].number))[0]


def _costs(scores: Scores, objectives: Sequence[str]) -> tuple[float, ...]:
    return tuple(OBJECTIVES[name].cost(scores) for name in objectives)


def _final(rounds: Sequence[Round]) -> float:
    return statistics.fmean(score.accuracy for score in scores_of(rounds)[-FINAL_ROUNDS:])


def _reach(rounds: Sequence[Round], target: float) -> tuple[int | None, int | None]:
    total = 0
    for done in rounds:
        total += done.upload_bytes + done.download_bytes
        if done.accuracy is not None and done.accuracy >= target:
            return done.round_num, total
    return None, None


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
