"""A sweep on disk: SWEEP.toml in; ``trials.jsonl``, ``sweep.json`` and ``best.toml`` out."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device_sim.experiment.as_compiled import left_open
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import as_toml, parse_experiment, read_experiment, to_toml
from device_sim.sweep.plan import Range, SweepPlan, Trial, Value
from device_sim.sweep.results import FINAL_ROUNDS, TrialResult, best, front_of
from fl_mobile.errors import ConfigError, RunError, nearest
from fl_mobile.storage.files import write_atomic, write_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KINDS: dict[str, tuple[type, str]] = {
    "base": (str, "the path of an experiment file, in quotes"),
    "seeds": (int, "a whole number"),
    "sampler": (str, "a string in quotes"),
    "trials": (int, "a whole number"),
    "sampler-seed": (int, "a whole number"),
    "objectives": (list, "a list of strings"),
    "experiment": (dict, "tables such as [experiment.train]"),
    "search": (dict, "a table [search]"),
}


def read_sweep(path: Path, changes: Sequence[str] = (), seeds: int | None = None) -> SweepPlan:
    """Returns the plan of a SWEEP.toml, checked to the last choice.

    Args:
        changes: --set options on top of the base.
        seeds: Replaces the file's.

    Raises:
        ConfigError: Broken TOML, an unknown key, a value of the wrong type, a choice that no experiment takes.
    """
    raw = _read_toml(path)
    for key, value in raw.items():
        if key not in _KINDS:
            raise ConfigError(f"{path}: unknown key '{key}'.{nearest(key, _KINDS)}")
        kind, wanted = _KINDS[key]
        if type(value) is not kind:
            raise ConfigError(f"{path}: {key} must be {wanted}, got {value!r}")
    if raw.get("sampler") == "grid" and "trials" in raw:
        raise ConfigError(f"{path}: a grid runs every combination, so leave trials out, or choose another sampler")
    if not all(isinstance(name, str) for name in raw.get("objectives", ())):
        raise ConfigError(f"{path}: objectives must be a list of strings, got {raw['objectives']!r}")
    return SweepPlan(
        base=_base(path, raw, changes),
        space={key: _choices(path, key, value) for key, value in _searched(raw.get("search", {}))},
        seeds=raw.get("seeds", SweepPlan.seeds) if seeds is None else seeds,
        sampler=raw.get("sampler", SweepPlan.sampler),
        trials=raw.get("trials", SweepPlan.trials),
        sampler_seed=raw.get("sampler-seed", SweepPlan.sampler_seed),
        objectives=tuple(raw.get("objectives", SweepPlan.objectives)),
        where=str(path),
    )


def left_open_by(path: Path, changes: Sequence[str] = ()) -> frozenset[str]:
    """Returns what a sweep's base leaves to the model's ``compile()``; arguments as of `read_sweep`."""
    raw = _read_toml(path)
    text = (path.parent / raw["base"]).read_text(encoding="utf-8") if "base" in raw else ""
    return left_open(text, [*_flat(raw.get("experiment", {})), *changes])


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such sweep file; `fl-mobile sweep --help` shows one") from None
    except (IsADirectoryError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _base(path: Path, raw: Mapping[str, Any], changes: Sequence[str]) -> Experiment:
    base = read_experiment(path.parent / raw["base"]) if "base" in raw else parse_experiment("")
    inline = [*_flat(raw.get("experiment", {}))]
    try:
        changed = parse_experiment(to_toml(base), inline, where=f"{path}: base")
    except ConfigError as error:
        raise ConfigError(f"{path}: [experiment] {str(error).removeprefix('--set ')}") from None
    return parse_experiment(to_toml(changed), changes, where=str(path))


def _flat(table: Mapping[str, Any], section: str = "") -> list[str]:
    out = []
    for key, value in table.items():
        if isinstance(value, dict):
            out += _flat(value, f"{section}{key}.")
        else:
            out.append(f"{section}{key}={as_toml(value)}")
    return out


_RANGE: dict[str, tuple[type, ...]] = {"low": (int, float), "high": (int, float), "step": (int, float), "log": (bool,)}


def _searched(table: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every key with what is said of it; ``train.epochs`` may be written with quotes or without."""
    for key, value in table.items():
        if isinstance(value, dict) and value and not value.keys() & _RANGE.keys():
            yield from _searched(value, f"{section}{key}.")
        else:
            yield section + key, value


def _choices(path: Path, key: str, value: Any) -> Range | tuple[Value, ...]:
    where = f'{path}: [search] "{key}"'
    if isinstance(value, list) and all(isinstance(v, (str, int, float, bool)) for v in value):
        return tuple(value)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: give a list of choices or {{ low = …, high = … }}, got {value!r}")
    for name, given in value.items():
        if name not in _RANGE:
            raise ConfigError(f"{where}: unknown key '{name}'.{nearest(name, _RANGE)}")
        if type(given) not in _RANGE[name]:
            raise ConfigError(f"{where}: {name} must be {'true or false' if name == 'log' else 'a number'}: {given!r}")
    if not {"low", "high"} <= value.keys():
        raise ConfigError(f"{where}: a range needs low and high, got {value!r}")
    try:
        return Range(**value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def folder_name(trial: Trial) -> str:
    """Returns a file name for a trial: readable, and unique by a few digits of its values' hash."""
    exact = hashlib.sha256("\n".join([trial.label, *trial.changes()]).encode()).hexdigest()
    return re.sub(r"[^\w.=-]+", "_", trial.label)[:60] + "-" + exact[:8]


def read_log(out: Path) -> list[dict[str, Any]]:
    """Returns the lines of ``trials.jsonl``; none before the first trial has ended.

    Raises:
        RunError: It is damaged.
    """
    path = out / "trials.jsonl"
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if any(not {"number", "label", "params", "failure"} <= line.keys() for line in lines):
            raise ValueError("a line is no trial")
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error}); delete it, the runs beside it are all that counts") from None
    return lines


def write_log(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``trials.jsonl``, whole or not at all."""
    write_atomic(out / "trials.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())


def write_results(
    out: Path, what: Mapping[str, Any], results: Sequence[TrialResult], objectives: Sequence[str]
) -> dict[str, Any]:
    """Writes ``sweep.json`` and returns its content.

    Args:
        what: The plan in JSON types; ``seeds`` and ``experiment`` at least.
    """
    chosen = best(results, objectives, what["seeds"])
    content = {
        **what,
        "final_rounds": FINAL_ROUNDS,
        "trials": [asdict(result) for result in results],
        "pareto_front": [result.number for result in front_of(results, objectives)],
        "best": None if chosen is None else chosen.number,
    }
    write_json(out / "sweep.json", content)
    return content


def write_best(path: Path, base: Experiment, chosen: TrialResult) -> None:
    """Writes the experiment of a trial, ready for ``fl-mobile simulate``; it keeps the base's seed and output."""
    experiment = parse_experiment(to_toml(base), Trial(chosen.label, chosen.params).changes())
    write_atomic(path, (f"# trial {chosen.number}: {chosen.label}\n" + to_toml(experiment)).encode())
