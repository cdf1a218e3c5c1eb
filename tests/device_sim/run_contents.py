"""Is every file of a run folder whole, and are two run folders the same but for their clocks?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.experiment.toml import parse_experiment
from fl_mobile.storage.files import is_temporary

CLOCKS = {"wall_seconds"}
"""Keys that two equal runs may differ in."""


def damaged(run: Path, finished: Path) -> str:
    """Returns the first file of a run folder that cannot be read whole, or an empty string.

    A temporary file is not looked at: the next run clears it away. An event file, which grows in place and is written
    anew when a run goes on, has to begin as the one of the ``finished`` run does.
    """
    for file in sorted(p for p in run.rglob("*") if p.is_file() and not is_temporary(p)):
        try:
            if "tfevents" in file.name:
                assert (finished / file.relative_to(run)).read_bytes().startswith(file.read_bytes())
            else:
                READERS[file.suffix](file)
        except Exception as error:
            return f"{file.name} is damaged: {error!r}"
    return ""


def left_behind(run: Path) -> dict[str, str]:
    """Returns SHA-256 by name of all files below ``run``, temporary ones too, clocks left out."""
    return {str(f.relative_to(run)): _digest(f) for f in sorted(run.rglob("*")) if f.is_file()}


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """Returns in which files two answers of `left_behind` differ, or an empty string."""
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    kinds = ("missing" if n not in found else "extra" if n not in expected else "differs" for n in names)
    return ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))


def _read_arrays(file: Path) -> None:
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays:
            _ = arrays[name]


def _read_lines(file: Path) -> None:
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # a torn last line is what readers drop
            json.loads(line)


READERS: dict[str, Callable[[Path], object]] = {
    ".npz": _read_arrays,
    ".keras": _read_arrays,
    ".json": lambda file: json.loads(file.read_text()),
    ".jsonl": _read_lines,
    ".toml": lambda file: parse_experiment(file.read_text()),
}
"""Suffix → what reads a file of that kind to its end. A run that leaves another kind fails until it has a row."""


def _digest(file: Path) -> str:
    data = file.read_bytes()
    if not is_temporary(file) and file.suffix == ".json":
        data = json.dumps(_timeless(json.loads(data))).encode()
    if not is_temporary(file) and file.suffix == ".jsonl":
        data = json.dumps([_timeless(json.loads(line)) for line in data.splitlines()]).encode()
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in CLOCKS} if isinstance(value, dict) else value
