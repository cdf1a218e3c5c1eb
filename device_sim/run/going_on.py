"""Going on from where a run stands: more rounds than it was to have, other stop rules, other output.

What decided the rounds that were played must not change; what only says when to end may, where the longer run is
the one that would have come of it from the start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.experiment.toml import read_experiment, to_toml, values_by_key
from device_sim.run.best import best_round
from device_sim.run.folder import RunFolder, check_sources, locked
from device_sim.run.log import Round
from device_sim.run.loop import stop_reason
from fl_mobile.errors import RunError
from fl_mobile.server.schedule import SCHEDULES as SERVER_SCHEDULES
from fl_mobile.storage.files import temporary, write_atomic

ENDINGS = ("train.rounds", "stop.", "privacy.max-epsilon")
"""Keys that say when a run ends and, but for `TIED_TO_ROUNDS`, nothing of what happens until then."""

TIED_TO_ROUNDS = {
    "train.schedule": ("cosine",),
    "server.schedule": tuple(name for name, row in SERVER_SCHEDULES.items() if row.fall),
}
"""Key → its values that spread something over train.rounds, so that other rounds are another run from round 0."""


def check_goes_on(path: Path, stored: Experiment, wanted: Experiment, rounds: Sequence[Round]) -> bool:
    """Returns whether ``wanted`` ends otherwise than ``stored``, the experiment of the run.

    Args:
        path: Names the run in messages.
        rounds: What has been played.

    Raises:
        RunError: The run cannot go on as ``wanted``; names the key, and says what to do.
    """
    check_sources(RunFolder(path), stored)
    _check_best(path, stored, wanted, rounds)
    if experiment_hash(stored) == experiment_hash(wanted):
        return False
    before, now = values_by_key(stored), values_by_key(wanted)
    differing = {key for key in before | now if before.get(key) != now.get(key)}
    decisive = {key for key in differing if not key.startswith(("output.", "engine."))}
    if experiment_hash(replace(stored, engine=wanted.engine)) != experiment_hash(stored):
        decisive.add("engine.name")
    if others := sorted(key for key in decisive if not key.startswith(ENDINGS)):
        told = ", ".join(f"{key} = {now.get(key)!r} (there {before.get(key)!r})" for key in others)
        raise RunError(
            f"{path} belongs to another experiment than the one given: {told}. Resume it without changing"
            " any key but train.rounds, [stop] and [output], or start again with another --out."
        )
    if wanted.train.rounds != stored.train.rounds:
        _check_rounds(path, stored, wanted.train.rounds, rounds)
    reason = stop_reason(wanted, rounds)
    if reason and len(rounds) < wanted.train.rounds:
        raise RunError(
            f"{path} would end again at once: {reason}. Change [stop] as well, e.g. --set stop.patience=0"
            " --set stop.target-accuracy=0."
        )
    return True


def _check_best(path: Path, stored: Experiment, wanted: Experiment, rounds: Sequence[Round]) -> None:
    """Raises `RunError` if the weights of the best round by another metric were not kept."""
    held, best = best_round(stored, rounds), best_round(wanted, rounds)
    if held != best:
        raise RunError(
            f"{path}: output.keep-by '{wanted.output.keep_by}': the weights of its best round so far were not kept,"
            f" those of the best {stored.output.keep_by} were. Leave output.keep-by as it was, or take another --out."
        )


def _check_rounds(path: Path, stored: Experiment, wanted: int, rounds: Sequence[Round]) -> None:
    values = values_by_key(stored)
    for key, tied in TIED_TO_ROUNDS.items():
        if values[key] in tied:
            raise RunError(
                f"{path}: {key} '{values[key]}' is spread over train.rounds = {stored.train.rounds}; a run of {wanted}"
                " rounds would have been another one from its first round on. Start a new run with"
                f" --rounds {wanted} and another --out; --set model.weights={path / 'model.keras'} starts from this"
                " one's model."
            )
    if stored.privacy.target_epsilon:
        raise RunError(
            f"{path}: privacy.target-epsilon {stored.privacy.target_epsilon:g} was solved for the noise of"
            f" {stored.train.rounds} rounds, and rounds that are played cannot be given more of it. Start a new run"
            f" with --rounds {wanted} and another --out."
        )
    done = len(rounds)
    if wanted < done or (wanted == done and rounds[-1].accuracy is None):
        least = done if wanted < done else done + 1  # the last round of a run is always evaluated
        raise RunError(f"{path}: {done} rounds are played already; --rounds must be at least {least}, got {wanted}.")


def _results(experiment: Experiment) -> tuple[str, str, str]:
    """Returns what decides ``model.keras``."""
    return experiment_hash(experiment), experiment.output.keep, experiment.output.keep_by


def rewrite(folder: RunFolder, experiment: Experiment) -> None:
    """Makes ``experiment`` that of the run; where it is decided otherwise, the results of the earlier end go first.

    Killed in between, the run is one that was played and has no results yet: --resume writes them again.
    """
    text = to_toml(experiment).encode()
    with locked(folder):
        if folder.experiment.read_bytes() == text:
            return
        if _results(read_experiment(folder.experiment)) != _results(experiment):
            folder.summary.unlink(missing_ok=True)
            if folder.bundle.exists():
                doomed = temporary(folder.bundle)
                os.rename(folder.bundle, doomed)  # a kill from here on leaves what the next start clears away
                shutil.rmtree(doomed)
        write_atomic(folder.experiment, text)
