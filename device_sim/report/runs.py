"""Run folders as frozen records. Whatever the report says is read here, and checked while it is read.

```
experiment.toml ─▶ Experiment    rounds.jsonl ─▶ Round …    timeline.jsonl ─▶ Timeline …    summary.json ─▶ Closing
```
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.run.checked import record_of
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.log import Round, read_lines, read_rounds, scores_of
from device_sim.run.privacy import NO_PRIVACY, privacy_told
from device_sim.run.summary import kept_told, read_summary
from fl_mobile.errors import ConfigError, RunError


@dataclass(frozen=True)
class Trips:
    """What each device of one round did; columns of equal length, times in virtual seconds since the run's start.

    A time is None if the device never got so far.
    """

    device: tuple[int, ...]
    profile: tuple[str, ...]
    link: tuple[str, ...]
    asked: tuple[float, ...]
    downloaded: tuple[float | None, ...]
    trained: tuple[float | None, ...]
    uploaded: tuple[float | None, ...]
    outcome: tuple[str, ...]
    upload_bytes: tuple[float | None, ...]
    download_bytes: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    joules: tuple[float | None, ...]


@dataclass(frozen=True)
class Timeline:
    """One round from ``start`` to ``end``, in virtual seconds since the run's start."""

    round_num: int
    start: float
    end: float
    trips: Trips


@dataclass(frozen=True)
class Spread:
    """Accuracy over devices, 0 to 1; ``counts[i]`` of them lie between ``edges[i]`` and ``edges[i + 1]``."""

    p10: float
    p50: float
    p90: float
    worst_5_percent: float
    mean: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """The global model on every device's own examples, and after each device made it its own; None if none did."""

    before: Spread
    after: Spread | None
    personalisation: str


@dataclass(frozen=True)
class Closing:
    """What ``summary.json`` adds to the rounds of a finished run."""

    command: str
    stop_reason: str
    engine: str
    experiment_sha256: str
    weights_sha256: str
    fp32_model_bytes: int
    population: int
    dataset: dict[str, str]
    versions: dict[str, str]
    kept: str
    warnings: tuple[str, ...]
    evaluation: Evaluation | None
    privacy: str = NO_PRIVACY


@dataclass(frozen=True)
class Run:
    """One run as the report sees it.

    Attributes:
        label: Short and different from every other run's in the report.
        rounds: At least one that was evaluated.
        timelines: By rising round; empty if the run kept none.
        closing: None while the run is unfinished.
    """

    label: str
    path: Path
    experiment: Experiment
    rounds: tuple[Round, ...]
    timelines: tuple[Timeline, ...]
    closing: Closing | None


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Returns the runs of these folders, labelled by what tells their paths apart.

    Raises:
        ConfigError: The same folder twice.
        RunError: A folder without a finished round, or with a file that is damaged.
    """
    places = [Path(os.path.realpath(path)) for path in paths]
    if len(set(places)) < len(places):
        raise ConfigError("a report compares different runs; one of the folders was given twice")
    return [_read_run(path, label) for path, label in zip(paths, labels(places), strict=True)]


def labels(places: Sequence[Path]) -> list[str]:
    """Returns the folder's name of a single run, else the paths below what all of them share.

    >>> labels([Path("/runs/a/seed-0"), Path("/runs/b/seed-0")]), labels([Path("/runs/demo")])
    (['a/seed-0', 'b/seed-0'], ['demo'])
    """
    if len(places) == 1:
        return [places[0].name]
    shared = Path(os.path.commonpath([place.parent for place in places]))
    return [place.relative_to(shared).as_posix() for place in places]


def _read_run(path: Path, label: str) -> Run:
    folder, experiment = reopen(path)
    rounds = _read_rounds(folder)
    summary = read_summary(folder)
    if summary is not None and summary["rounds"] != len(rounds):
        raise RunError(
            f"{folder.summary} speaks of {summary['rounds']} rounds, {folder.rounds.name} holds {len(rounds)};"
            " restore the missing part, or remove summary.json and continue the run with --resume."
        )
    timelines = _read_timelines(folder.timeline, len(rounds))
    closing = None if summary is None else _read_closing(summary, folder.summary)
    return Run(label=label, path=path, experiment=experiment, rounds=rounds, timelines=timelines, closing=closing)


def _read_rounds(folder: RunFolder) -> tuple[Round, ...]:
    rounds = tuple(read_rounds(folder))
    if not rounds:
        raise RunError(f"{folder.path} has no finished round yet; there is nothing to report.")
    if not scores_of(rounds):
        raise RunError(
            f"{folder.path}: none of its {len(rounds)} rounds was evaluated yet, see evaluation.interval; there is"
            " nothing to report. Continue it with --resume."
        )
    return rounds


def _read_timelines(path: Path, rounds: int) -> tuple[Timeline, ...]:
    found: dict[int, Timeline] = {}
    for value, where in read_lines(path):
        try:
            columns = {name: tuple(column) for name, column in value["devices"].items()}
            head = {name: value[name] for name in ("round_num", "start", "end")}
        except (TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{where}: expected round_num, start, end and columns of devices ({error!r}).") from None
        timeline = record_of(Timeline, {**head, "trips": record_of(Trips, columns, where)}, where)
        if len({len(column) for column in columns.values()}) != 1:
            raise RunError(f"{where}: the columns of a round's devices must have equal length; restore the file.")
        # A crash between the timeline and the checkpoint leaves a round that was played again: the later line counts.
        found[timeline.round_num] = timeline
    return tuple(found[number] for number in sorted(found) if number < rounds)


def _read_closing(summary: dict[str, Any], path: Path) -> Closing:
    try:
        dataset, evaluated = summary["dataset"], summary.get("federated_evaluation")
        read = {
            **{name: summary[name] for name in ("command", "stop_reason", "experiment_sha256")},
            "engine": summary.get("engine", "not recorded"),  # in summaries since there is more than one
            "weights_sha256": summary["model"]["weights_sha256"],
            "fp32_model_bytes": summary["traffic"]["fp32_model_bytes"],
            "population": summary["devices"]["population"],
            "dataset": {name: str(value) for name, value in dataset.items()},
            "versions": {name: str(value) for name, value in summary["versions"].items()},
            "kept": kept_told(summary),
            "warnings": tuple(summary["warnings"]),
            "evaluation": None if evaluated is None else _evaluation(evaluated, str(path)),
            "privacy": privacy_told(summary.get("privacy")),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error!r}). Remove it and run again with --resume.") from None
    return record_of(Closing, read, str(path))


def _evaluation(value: dict[str, Any], where: str) -> Evaluation:
    after = value.get("personalised")
    read = {
        "before": _spread(value, where),
        "after": None if after is None else _spread(after, where),
        "personalisation": value.get("personalisation") or "",
    }
    return record_of(Evaluation, read, where)


def _spread(value: dict[str, Any], where: str) -> Spread:
    edges, counts = (tuple(value["histogram"][name]) for name in ("edges", "counts"))
    spread = record_of(Spread, {**value["accuracy"], "edges": edges, "counts": counts}, where)
    if len(edges) != len(counts) + 1 or list(edges) != sorted(set(edges)):
        raise RunError(f"{where}: a histogram of {len(counts)} counts needs {len(counts) + 1} rising edges.")
    return spread
