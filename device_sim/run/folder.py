"""A run on disk. Every file is whole or absent; a killed run continues from the last finished round.

```
runs/demo/
  experiment.toml   the resolved experiment          rounds.jsonl     one line a finished round
  checkpoint.npz    server state after that round    updates/*.npz    a few client updates, for `fl-mobile measure`
  model.keras       the final global model           summary.json     the result, with hashes and the command
  bundle/           exported TFLite variants         memory/          what devices remember between rounds
  timeline.jsonl    some rounds, device by device    tb/              the rounds again, for TensorBoard
  best/             weights of the best round        model-best.keras the model output.keep did not ask for, or -last
  layout.json       which version of all this it is  errors.txt       all that TensorFlow said when a step failed
  data.npz          examples that Python gave        objects.json     hashes of functions and models that Python gave
```
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from device_sim.experiment.experiment import Experiment, experiment_hash, sources_of
from device_sim.experiment.toml import read_experiment, to_toml
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.storage.files import clear_temporaries, is_temporary, naming, write_atomic, write_json

try:
    import fcntl
except ModuleNotFoundError:
    raise RunError(
        f"runs are locked and synced the POSIX way, which this system ({sys.platform}) lacks. fl-mobile runs on Linux;"
        " on Windows run it inside WSL (`wsl --install`)."
    ) from None

LAYOUT = 5
"""Counts up whenever a file of a run folder changes its meaning or its fields."""

ARRAYS = "data.npz"
"""In a run folder: the examples of a run that `device_sim.simulate` got as arrays."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run.

    Attributes:
        passing: Whether the folder goes away with the process that plays the run.
    """

    path: Path
    passing: bool = False

    @property
    def layout(self) -> Path:
        return self.path / "layout.json"

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
    def best(self) -> Path:
        return self.path / "best"

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
    def errors(self) -> Path:
        return self.path / "errors.txt"

    @property
    def arrays(self) -> Path:
        return self.path / ARRAYS

    @property
    def objects(self) -> Path:
        return self.path / "objects.json"

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
    write_json(folder.layout, {"layout": LAYOUT, "fl_mobile": _version(), "sources": sources_of(experiment)})
    write_atomic(folder.experiment, to_toml(experiment).encode())
    return folder


def refuse_existing(path: Path) -> None:
    """Raises `RunError` unless ``path`` is free for a new run; asked before anything slow is loaded."""
    # What is left of a run that was killed while it wrote its first files is free to be used.
    if path.exists() and (not path.is_dir() or not all(map(_no_loss, path.iterdir()))):
        raise RunError(f"{path} exists and is not empty. Continue it with --resume, or choose another --out.")


def _no_loss(path: Path) -> bool:
    run = RunFolder(path.parent)
    return is_temporary(path) or path.name in (run.layout.name, run.errors.name)


def discard(folder: RunFolder) -> None:
    """Removes a run that failed before its first round was safe: there is nothing in it to continue from. What it
    failed of stays, and is no loss to the next run there.

    If the disk refuses that as well, or a file of somebody else's lies there, the rest stays and can be resumed:
    experiment.toml is the last to go.
    """
    with contextlib.suppress(OSError):
        if folder.checkpoint.exists() and folder.rounds.exists():
            return  # that of a private run is there before its first round, and holds a key that nothing came of
        for path in (folder.updates, folder.memory, folder.best, folder.tensorboard):
            if path.exists():
                shutil.rmtree(path)
        clear_temporaries(folder.path)
        for path in (folder.rounds, folder.timeline, folder.checkpoint, folder.arrays, folder.objects):
            path.unlink(missing_ok=True)
        left = set(os.listdir(folder.path)) - {folder.errors.name}
        if left == {folder.experiment.name, folder.layout.name}:
            folder.experiment.unlink()
            folder.layout.unlink()
            if not folder.errors.exists():
                folder.path.rmdir()


def reopen(path: Path, experiment: Experiment | None = None) -> tuple[RunFolder, Experiment]:
    """Returns an existing run folder and its experiment.

    Raises:
        RunError: No run there, one of another version of fl-mobile, or it belongs to a different ``experiment``.
    """
    folder = RunFolder(path)
    if not folder.experiment.exists():
        raise RunError(f"{path} holds no run (no experiment.toml). `fl-mobile simulate --out {path}` makes one.")
    _check_layout(folder)
    try:
        stored = read_experiment(folder.experiment)
    except ConfigError as error:
        raise RunError(f"{error} The run was made by another version or its file was changed; restore it.") from None
    if experiment is not None and experiment_hash(experiment) != experiment_hash(stored):
        raise RunError(f"{path} belongs to another experiment than the one given; resume it without changing any key.")
    return folder, stored


def _check_layout(folder: RunFolder) -> None:
    """Raises `RunError` unless this version of fl-mobile made the run, or one that wrote the same files."""
    remedy = (
        "use that version for it, or start again with another --out."
        f" This is fl-mobile {_version()}, which reads layout {LAYOUT}."
    )
    if not folder.layout.exists():
        raise RunError(
            f"{folder.path} has no {folder.layout.name}: it is of an older fl-mobile, before runs had one; {remedy}"
        )
    try:
        told = json.loads(folder.layout.read_text(encoding="utf-8"))
        found, maker = told["layout"], told["fl_mobile"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{folder.layout}: damaged ({error!r}); restore it from a copy.") from None
    if found != LAYOUT:
        age = "newer" if isinstance(found, int) and found > LAYOUT else "older"
        raise RunError(f"{folder.path} has layout {found!r} of {age} fl-mobile {maker}; {remedy}")


def _version() -> str:
    try:
        return version("fl-mobile")
    except PackageNotFoundError:
        return "from its source tree"


def check_sources(folder: RunFolder, experiment: Experiment) -> None:
    """Raises `RunError` if the source of a part of one's own is another one than when the run began."""
    told = json.loads(folder.layout.read_text(encoding="utf-8")).get("sources", {})
    for name, found in sources_of(experiment).items():
        if told.get(name, found) != found:
            raise RunError(
                f"{folder.path}: the source of {name} has changed since the run began, and its rounds would not be"
                " those of one run. Restore the file, or start again with another --out."
            )


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Holds the run for one process, and clears away what a killed one left half written.

    The kernel releases the lock even after ``kill -9``.

    Raises:
        RunError: Another process holds it, or it is gone.
    """
    if not folder.experiment.exists():
        raise RunError(
            f"{folder.path} holds no run any more: what fails before its first round is removed. Begin anew."
        )
    with open(folder.experiment, "rb") as file:
        try:
            with naming(folder.experiment):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder.path} is being written by another process; wait for it or stop it.") from None
        clear_temporaries(folder.path)
        yield
