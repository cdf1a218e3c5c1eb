"""Did the run learn? Lines for the summary, the terminal and the report, each with what was seen and the likely reason.

```
rounds ──────────────┐
first, last weights ─┼─▶ warnings_of ─▶ summary["warnings"]
held-out labels ─────┘
```
Only what is true of this run is said, with its numbers; a run that learns gets no line.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_sim.engines import Task
from device_sim.engines.records import NOBODY
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.kept import BEST, LAST
from device_sim.federation.federation import Federation
from device_sim.run.best import Kept
from device_sim.run.log import Round, Score, scores_of
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import Tensors

PEAK_POINTS = 5.0
"""So many points below its best, a final accuracy is worth a line."""
RISING_ROUNDS, RISING_FACTOR = 6, 1.2
"""A held-out loss that is for at least so many rounds above its best, and ends above so many times of it, rises."""
STILL = 1e-4
"""Weights that moved by a smaller part of their length have hardly been trained."""
PER_CLASS = 50
"""Held-out examples of each class that are looked at, where one class is suspected."""
NOTHING_TRAINED = "nothing was trained"


@dataclass(frozen=True)
class Evidence:
    """What is known of the model that is kept, beside the rounds.

    Attributes:
        round_num: After which it was the global one.
        labels: ``int[n]`` of the held-out test set; None where examples have no single class each.
        first: Weights before the first round.
        kept: And the model's.
        by_class: Returns class → accuracy on its held-out examples; asked only where one class is suspected.
    """

    round_num: int
    labels: np.ndarray | None
    first: Tensors
    kept: Tensors
    by_class: Callable[[], Mapping[int, float]]


def evidence_of(federation: Federation, kept: Kept) -> Evidence:
    """Returns what is known of the model that a run keeps."""
    test, weights = federation.dataset.test, federation.whole(kept.weights)
    labels = test.y if federation.dataset.task == CLASSIFICATION else None

    def by_class() -> Mapping[int, float]:
        classes = np.unique(test.y)
        places = [np.flatnonzero(test.y == c)[:PER_CLASS] for c in classes]
        targets = federation.dataset.trained_targets(test.y)
        tasks = [Task(NOBODY, test.x[at], targets[at], 0) for at in places]
        found = federation.engine.evaluate_each(weights, tasks, federation.plan(kept.round_num))
        return {int(c): score.accuracy for c, score in zip(classes, found, strict=True)}

    return Evidence(
        round_num=kept.round_num,
        labels=labels,
        first=federation.whole(federation.initial),
        kept=weights,
        by_class=by_class,
    )


def trained_nothing(rounds: Sequence[Round]) -> bool:
    """Returns whether no update was ever accepted, so that the model is the one the run began with."""
    return not any(done.accepted for done in rounds)


def warnings_of(experiment: Experiment, rounds: Sequence[Round], evidence: Evidence) -> list[str]:
    """Returns one line for everything that went wrong with learning; none for a run that learnt."""
    if trained_nothing(rounds):
        return [_why_nobody(experiment, rounds)]
    scores = scores_of(rounds)
    chance = _at_chance(experiment, rounds, scores, evidence)
    return [
        *_odd_tensors(evidence.kept),
        *chance,
        *_still(experiment, scores, evidence, chance),
        *_past_its_best(experiment, scores, evidence, chance),
        *_rising(rounds, scores, chance),
    ]


_REMEDIES: dict[str, Callable[[Experiment], str]] = {
    "offline": lambda e: f"lower fleet.dropout-rate ({e.fleet.dropout_rate:g})",
    "lost": lambda e: f"take a better fleet.link ('{e.fleet.link}') or smaller uploads",
    "late": lambda e: f"raise clock.deadline-seconds ({e.clock.deadline_seconds:g})",
    "interrupted": lambda e: f"lower fleet.interruptions-per-hour ({e.fleet.interruptions_per_hour:g})",
    "ram": lambda e: f"the model does not fit: raise fleet.ram-share ({e.fleet.ram_share:g}) or take a smaller one",
    "no-examples": lambda e: "devices hold no examples: fewer data.devices, or data.min-examples = 1",
    "offline-hours": lambda e: f"loosen fleet.availability ('{e.fleet.availability}')",
    "not-charging": lambda e: "set fleet.charging = false",
    "metered": lambda e: "set fleet.unmetered = false",
    "busy": lambda e: "set fleet.idle = false",
    "battery": lambda e: f"lower fleet.min-battery ({e.fleet.min_battery:g})",
    "small-update": lambda e: f"lower policy.min-update-norm ({e.policy.of_policy.min_update_norm:g})",
    "small-drift": lambda e: f"lower policy.min-loss-drift ({e.policy.of_policy.min_loss_drift:g})",
    "few-new-examples": lambda e: f"lower policy.min-new-examples ({e.policy.of_policy.min_new_examples})",
    "period": lambda e: f"lower policy.period-seconds ({e.policy.of_policy.period_seconds:g})",
    "min-separation": lambda e: f"lower policy.min-separation-seconds ({e.policy.min_separation_seconds:g})",
    "stale": lambda e: f"raise clock.max-staleness ({e.clock.max_staleness})",
}
"""Why devices were dropped or skipped → what to change."""


def _why_nobody(experiment: Experiment, rounds: Sequence[Round]) -> str:
    asked, dropped, skipped = sum(r.cohort for r in rounds), Counter[str](), Counter[str]()
    for done in rounds:
        dropped.update(done.dropped)
        skipped.update(done.skipped)
    counted = dropped if dropped.total() else skipped
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted.most_common(3) if count)
    told = f"{asked:,} devices were asked, none is in the average" if asked else "no device could be asked"
    main = counted.most_common(1)[0][0] if counted.total() else ""
    remedy = f" Likely remedy: {_REMEDIES[main](experiment)}." if main in _REMEDIES else ""
    return (
        f"{NOTHING_TRAINED}: in {len(rounds)} rounds {told} ({reasons or 'no reason counted'});"
        f" the model is the one the run began with.{remedy}"
    )


def _odd_tensors(weights: Tensors) -> list[str]:
    broken = [path for path, value in weights.items() if not np.isfinite(value).all()]
    negative = [path for path, value in weights.items() if path.endswith("moving_variance") and (value < 0).any()]
    out = []
    if broken:
        out.append(
            f"{len(broken)} tensors of the model are not finite, e.g. '{broken[0]}': training diverged there."
            " Lower train.learning-rate or server.learning-rate."
        )
    if negative:
        out.append(
            f"{len(negative)} running variances are below 0, e.g. '{negative[0]}': no layer of batch normalisation can"
            ' work with them. Lower server.learning-rate, or keep them on devices: personal.private = "batch-norm".'
        )
    return out


def _at_chance(
    experiment: Experiment, rounds: Sequence[Round], scores: Sequence[Score], evidence: Evidence
) -> list[str]:
    if evidence.labels is None or not len(evidence.labels):
        return []
    classes, counts = np.unique(evidence.labels, return_counts=True)
    count = len(evidence.labels)
    final = next(score.accuracy for score in scores if score.round_num == evidence.round_num)
    commonest = float(counts.max()) / count
    lines = []
    if len(classes) > 1 and np.isclose(final, counts / count, rtol=0, atol=0.5 / count).any():
        right = {c: share for c, share in evidence.by_class().items() if share}
        if list(right.values()) == [1.0]:
            lines.append(f"only class {next(iter(right))} is ever right: the model answers it whatever it sees")
    if len(classes) > 1 and final <= _chance(evidence.labels):
        told = f"the commonest of {len(classes)} classes is {commonest:.1%} of the held-out examples"
        lines.append(f"accuracy {final:.1%} is not above chance: {told}")
    return ["; ".join(lines) + f". {_reason(experiment, rounds, scores, evidence)}"] if lines else []


def _chance(labels: np.ndarray) -> float:
    """Returns the accuracy that answering the commonest class hardly ever exceeds, by two standard errors."""
    share = float(np.unique(labels, return_counts=True)[1].max()) / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))


def _reason(experiment: Experiment, rounds: Sequence[Round], scores: Sequence[Score], evidence: Evidence) -> str:
    """Returns the likeliest reason that a model does not learn, from what moved and what did not."""
    rates = _rates(experiment)
    moved, begun, now = _moved(evidence), scores[0].loss, scores[-1].loss
    trains = [r.train_loss for r in rounds if r.train_loss is not None]
    if moved < STILL:
        return f"The weights moved by {moved:.1g} of their length only: raise {rates}"
    if now > 1.05 * begun and len(trains) > 1 and trains[-1] < 0.9 * trains[0]:
        return (
            f"The held-out loss rose from {begun:.3g} to {now:.3g} while the devices' own fell from {trains[0]:.3g} to"
            f" {trains[-1]:.3g}: what they learn does not hold on the test set. Check that labels belong to their"
            " examples and are coded like the test set's; else fewer train.epochs, or a larger train.cohort"
        )
    if now > 1.05 * begun:
        return f"The held-out loss rose from {begun:.3g} to {now:.3g}: lower {rates}, or take fewer train.epochs"
    if len(trains) > 1 and trains[-1] < 0.5 * trains[0]:
        return (
            f"The devices' own loss fell from {trains[0]:.3g} to {trains[-1]:.3g}, so each learns what the others do"
            " not have: fewer train.epochs, a larger train.cohort, or check that test labels are coded like theirs"
        )
    if now < 0.98 * begun:
        return f"The held-out loss still falls, from {begun:.3g} to {now:.3g}: more rounds (--resume --rounds N)"
    if len(rounds) < 3:
        return f"{len(rounds)} rounds tell little: more of them (--resume --rounds N)"
    return f"No loss moves: raise {rates}, and check that labels belong to their examples"


def _rates(experiment: Experiment) -> str:
    return f"train.learning-rate ({experiment.train.learning_rate:g}) or server.learning-rate"


def _still(experiment: Experiment, scores: Sequence[Score], evidence: Evidence, told: Sequence[str]) -> Iterator[str]:
    """Yields a line for a model that is as it was, whatever its first weights happen to answer."""
    moved, begun, now = _moved(evidence), scores[0].loss, scores[-1].loss
    if not told and moved < STILL and abs(now - begun) < 0.01 * abs(begun):
        yield (
            f"nothing was learnt: the weights moved by {moved:.1g} of their length only, and the held-out loss went"
            f" from {begun:.3g} to {now:.3g}. Raise {_rates(experiment)}."
        )


def _moved(evidence: Evidence) -> float:
    length = math.sqrt(sum(float(np.square(v, dtype=np.float64).sum()) for v in evidence.first.values()))
    step = math.sqrt(
        sum(float(np.square(evidence.kept[p] - v, dtype=np.float64).sum()) for p, v in evidence.first.items())
    )
    return step / length if length else math.inf


def _past_its_best(
    experiment: Experiment, scores: Sequence[Score], evidence: Evidence, chance: Sequence[str]
) -> list[str]:
    best, final = max(scores, key=lambda s: s.accuracy), scores[-1]
    if 100 * (best.accuracy - final.accuracy) < PEAK_POINTS:
        return []
    if chance and evidence.labels is not None and best.accuracy <= _chance(evidence.labels):
        return []  # it never was worth keeping
    told = f"accuracy was {best.accuracy:.1%} after round {best.round_num + 1} and is {final.accuracy:.1%} at the end"
    remedy = {
        LAST: "--resume --set output.keep=best keeps the best round's model",
        BEST: "the best round's model is kept",
    }
    return [f"{told}: {remedy[experiment.output.keep]}; smaller learning rates may hold it"]


def _rising(rounds: Sequence[Round], scores: Sequence[Score], told: Sequence[str]) -> list[str]:
    best, final = min(scores, key=lambda s: s.loss), scores[-1]
    if told or final.round_num - best.round_num < RISING_ROUNDS or final.loss < RISING_FACTOR * best.loss:
        return []
    then, now = (rounds[s.round_num].train_loss for s in (best, final))
    falls = then is not None and now is not None and now < then
    why = (
        f"while the devices' own fell from {then:.3g} to {now:.3g}: they fit their own examples; fewer train.epochs, or"
        if falls
        else "and the devices' own did not fall: lower train.learning-rate or server.learning-rate, or"
    )
    return [
        f"the held-out loss rose from {best.loss:.3g} after round {best.round_num + 1} to {final.loss:.3g}, {why}"
        f" stop.patience, e.g. {RISING_ROUNDS}."
    ]
