"""Runs a search: every trial on every seed, what is finished already taken from disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.federation.federation import Federation, open_federation
from device_sim.run.folder import RunFolder, create, locked, reopen
from device_sim.run.kinds import kinds_of
from device_sim.run.log import Round, read_rounds
from device_sim.run.loop import simulate, stop_reason
from device_sim.sweep.files import folder_name, read_log, write_log
from device_sim.sweep.plan import Trial, experiments_of
from device_sim.sweep.results import Runs, TrialResult, score
from device_sim.sweep.search import Search
from fl_mobile.errors import FlMobileError, RunError
from fl_mobile.storage.files import write_json

KINDS = "kinds.json"
"""In the folder of a trial's first seed: what each kind of tensor cost of an upload."""

Watch = Callable[[str, Iterator[Round], int], None]


@dataclass(frozen=True)
class Sweep:
    """What all trials of a sweep share.

    Attributes:
        out: Folder of the runs and of ``trials.jsonl``.
        watch: Is given a title, the rounds to consume, and how many there will be at most.
        target_accuracy: See `device_sim.sweep.results.score`.
        open: Turns an experiment into what can be run.
    """

    base: Experiment
    seeds: int
    out: Path
    watch: Watch
    target_accuracy: float | None = None
    open: Callable[[Experiment], Federation] = open_federation


def run_sweep(sweep: Sweep, search: Search) -> list[TrialResult]:
    """Runs or resumes what is missing; returns all trials in order.

    A trial whose values do not go together, or whose training diverges, is kept as failed, with its reason. Trial 0
    must not fail: nothing could be compared with it.

    Raises:
        RunError: A folder belongs to another sweep, or is in use.
    """
    log = read_log(sweep.out)
    done: list[TrialResult] = []
    reference: Runs = ()
    folders: dict[str, str] = {}
    for number in range(search.count):
        trial, earlier = search.ask(), log[number] if number < len(log) else None
        _refuse_another(sweep.out, trial, earlier)
        folder, failure, scores = folder_name(trial), earlier["failure"] if earlier else "", None
        kinds: tuple[dict[str, Any], ...] = ()
        if not failure:
            try:
                folder, runs = _play(sweep, f"trial {number}/{search.count - 1}", trial, folders)
                reference = reference or runs
                scores = score(runs, reference, sweep.target_accuracy)
                kinds = _kinds(sweep.out / folder)
            except RunError:
                raise
            except FlMobileError as error:
                if number == 0:
                    raise
                failure = str(error)
        search.tell(scores)
        done.append(
            TrialResult(
                number=number,
                label=trial.label,
                params=trial.params,
                folder=folder,
                failure=failure,
                scores=scores,
                by_kind=kinds,
            )
        )
        line = json.loads(json.dumps(asdict(done[-1])))  # as it would be read back: tuples are lists
        if line != earlier:
            log[number : number + 1] = [line]
            write_log(sweep.out, log)
    return done


def _refuse_another(out: Path, trial: Trial, earlier: dict[str, Any] | None) -> None:
    if earlier is not None and (earlier["label"], earlier["params"]) != (trial.label, dict(trial.params)):
        raise RunError(
            f"{out}: trial {earlier['number']} was '{earlier['label']}', and now would be '{trial.label}': the sweep,"
            " its codecs or Optuna's version have changed. Undo that, or start again with another --out."
        )


def _play(sweep: Sweep, title: str, trial: Trial, folders: dict[str, str]) -> tuple[str, Runs]:
    """Returns the trial's folder and rounds; an equal experiment shares the folder of the trial that had it first."""
    experiments = experiments_of(sweep.base, trial, range(sweep.seeds))
    folder = folders.setdefault(experiment_hash(experiments[0]), folder_name(trial))
    runs = [
        _run(sweep, f"{title}, seed {seed}: {trial.label}", sweep.out / folder / f"seed-{seed}", experiment)
        for seed, experiment in enumerate(experiments)
    ]
    return folder, runs


def _run(sweep: Sweep, title: str, path: Path, experiment: Experiment) -> list[Round]:
    folder = reopen(path, experiment)[0] if RunFolder(path).experiment.exists() else create(path, experiment)
    measured = (path / KINDS).exists() or not experiment.output.keep_updates
    if not stop_reason(experiment, read_rounds(folder)) or not measured:
        federation = sweep.open(experiment)
        with contextlib.closing(federation.engine), locked(folder):
            sweep.watch(title, simulate(federation, folder), experiment.train.rounds)
            if not measured:
                write_json(path / KINDS, kinds_of(federation, folder))
    return read_rounds(folder)


def _kinds(trial: Path) -> tuple[dict[str, Any], ...]:
    """Returns what each kind of tensor cost of an upload of a trial's first seed; empty of runs that kept none."""
    path = trial / "seed-0" / KINDS
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()


def forecast(sweep: Sweep, search: Search) -> dict[str, Any]:
    """Returns what a sweep would run, in JSON types, without running it.

    ``seconds_per_run`` comes from runs that are finished in the folder already, and is None if there are none.
    ``known_trials`` are those that are certain now: all of a grid, else trial 0 and what has ended.
    """
    log = read_log(sweep.out)
    lines = [_foreseen(sweep, trial) for trial in search.known]
    lines[: len(log)] = log[: search.count]
    left, seconds = (search.count - len(lines)) * sweep.seeds, []
    for line in lines:
        if line["failure"]:
            continue
        trial = Trial(line["label"], line["params"])
        for seed, experiment in enumerate(experiments_of(sweep.base, trial, range(sweep.seeds))):
            rounds = read_rounds(RunFolder(sweep.out / line["folder"] / f"seed-{seed}"))
            if stop_reason(experiment, rounds):
                seconds.append(sum(r.wall_seconds for r in rounds))
            else:
                left += 1
    return {
        "trials": search.count,
        "seeds": sweep.seeds,
        "runs": search.count * sweep.seeds,
        "runs_left": left,
        "rounds_per_run": sweep.base.train.rounds,
        "fits_per_run": sweep.base.train.rounds * sweep.base.train.cohort,
        "seconds_per_run": sum(seconds) / len(seconds) if seconds else None,
        "known_trials": [{key: line[key] for key in ("label", "params", "failure")} for line in lines],
    }


def _foreseen(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    failure = ""
    try:
        experiments_of(sweep.base, trial, [0])
    except FlMobileError as error:
        failure = str(error)
    return {"label": trial.label, "params": dict(trial.params), "folder": folder_name(trial), "failure": failure}
