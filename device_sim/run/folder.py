"""A run on disk. Every file is whole or absent; a killed run continues from the last finished round.

```
runs/demo/
  experiment.toml   the resolved experiment          rounds.jsonl     one line a finished round
  checkpoint.npz    server state after that round    updates/*.npz    a few client updates, for `fl-mobile measure`
  model.keras       the final global model           summary.json     the result, with hashes and the command
  bundle/           exported TFLite variants         memory/          what devices remember between rounds
  timeline.jsonl    some rounds, device by device    tb/              the rounds again, for TensorBoard
```
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.experiment.toml import read_experiment, to_toml
from fl_mobile.errors import RunError
from fl_mobile.storage.files import append_line, clear_temporaries, is_temporary, naming, write_atomic


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def timeline(self) -> Path:
        return self.path / "timeline.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tb"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.npz"

    @property
    def updates(self) -> Path:
        return self.path / "updates"

    @property
    def memory(self) -> Path:
        return self.path / "memory"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"


def create(path: Path, experiment: Experiment) -> RunFolder:
    """Returns a new run folder that holds the resolved experiment.

    Raises:
        RunError: The folder exists and is not empty.
    """
    folder = RunFolder(path)
    refuse_existing(path)
    write_atomic(folder.experiment, to_toml(experiment).encode())
    return folder


def refuse_existing(path: Path) -> None:
    """Raises `RunError` unless ``path`` is free for a new run; asked before anything slow is loaded."""
    # What is left of a run that was killed while it wrote its first file is free to be used.
    if path.exists() and (not path.is_dir() or not all(map(is_temporary, path.iterdir()))):
        raise RunError(f"{path} exists and is not empty. Continue it with --resume, or choose another --out.")


def discard(folder: RunFolder) -> None:
    """Removes a run that failed before its first checkpoint: there is nothing in it to continue from.

    If the disk refuses that as well, or a file of somebody else's lies there, the rest stays and can be resumed:
    experiment.toml is the last to go.
    """
    with contextlib.suppress(OSError):
        if folder.checkpoint.exists():
            return
        for path in (folder.updates, folder.memory, folder.tensorboard):
            if path.exists():
                shutil.rmtree(path)
        clear_temporaries(folder.path)
        for path in (folder.rounds, folder.timeline):
            path.unlink(missing_ok=True)
        if os.listdir(folder.path) == [folder.experiment.name]:
            folder.experiment.unlink()
            folder.path.rmdir()


def reopen(path: Path, experiment: Experiment | None = None) -> tuple[RunFolder, Experiment]:
    """Returns an existing run folder and its experiment.

    Raises:
        RunError: No run there, or it belongs to a different ``experiment``.
    """
    folder = RunFolder(path)
    if not folder.experiment.exists():
        raise RunError(f"{path} holds no run (no experiment.toml); start one without --resume.")
    stored = read_experiment(folder.experiment)
    if experiment is not None and experiment_hash(experiment) != experiment_hash(stored):
        raise RunError(f"{path} belongs to another experiment than the one given; resume it without changing any key.")
    return folder, stored


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Holds the run for one process, and clears away what a killed one left half written.

    The kernel releases the lock even after ``kill -9``.
    """
    with open(folder.experiment, "rb") as file:
        try:
            with naming(folder.experiment):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder.path} is being written by another process; wait for it or stop it.") from None
        clear_temporaries(folder.path)
        yield


def append_round(folder: RunFolder, line: dict[str, Any]) -> None:
    """Adds one finished round to ``rounds.jsonl``."""
    append_line(folder.rounds, json.dumps(line, allow_nan=False))


def append_timeline(folder: RunFolder, line: dict[str, Any]) -> None:
    """Adds one round's devices to ``timeline.jsonl``."""
    append_line(folder.timeline, json.dumps(line, allow_nan=False))


def read_timeline(folder: RunFolder) -> list[dict[str, Any]]:
    """Returns the kept rounds' devices; a last line torn by a crash is left out."""
    return _read_lines(folder.timeline)


def read_rounds(folder: RunFolder) -> list[dict[str, Any]]:
    """Returns the finished rounds; a last line torn by a crash is left out."""
    return _read_lines(folder.rounds)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    out = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return out


def rewind_rounds(folder: RunFolder, finished: int) -> list[dict[str, Any]]:
    """Drops rounds the checkpoint does not know of (written just before a crash) and returns the rest.

    Raises:
        RunError: Rounds are missing that the checkpoint counts as finished.
    """
    kept = read_rounds(folder)[:finished]
    if len(kept) < finished:
        raise RunError(
            f"{folder.rounds}: {finished} rounds are finished but only {len(kept)} are readable; restore it."
        )
    _write_lines(folder.rounds, kept)
    _write_lines(folder.timeline, [line for line in read_timeline(folder) if line["round_num"] < finished])
    return kept


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    if path.exists():
        write_atomic(path, "".join(json.dumps(line) + os.linesep for line in lines).encode())
