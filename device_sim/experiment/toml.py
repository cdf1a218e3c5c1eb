"""TOML text ↔ `Experiment`: kebab-case keys, strict types, and errors that name the line and the nearest key."""

from __future__ import annotations

import json
import math
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment
from fl_mobile.errors import ConfigError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_experiment(path: Path, changes: Sequence[str] = ()) -> Experiment:
    """Returns the experiment of a TOML file with ``--set`` changes applied.

    Raises:
        ConfigError: No such file, broken TOML, an unknown key, or a value of the wrong type or range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file. `fl-mobile new DIR` writes one.") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    return parse_experiment(text, changes, where=str(path))


def parse_experiment(text: str, changes: Sequence[str] = (), where: str = "experiment") -> Experiment:
    """Returns the experiment of TOML text; see `read_experiment`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    sources = _Sources(text, where)
    for change in changes:
        _apply(raw, change, sources)
    return typing.cast(Experiment, _build(Experiment, raw, (), sources))


def to_toml(experiment: Experiment, *, comments: bool = False) -> str:
    """Returns TOML that `parse_experiment` turns back into the same experiment."""
    return "\n".join([*_lines(experiment, comments), *_tables(experiment, (), comments)]) + "\n"


def all_keys() -> list[str]:
    """Returns every key as ``section.key`` or ``section.table.key``, in file order."""
    return _keys(Experiment, ())


def parse_value(text: str) -> Any:
    """Returns what stands after ``=`` on a command line: TOML, or a bare word.

    >>> parse_value("0.05"), parse_value("digits")
    (0.05, 'digits')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def as_toml(value: Any) -> str:
    """Returns a value as it is written behind ``=``.

    >>> as_toml("a\\n"), as_toml(["x"]), as_toml(float("nan"))
    ('"a\\\\n"', '["x"]', 'nan')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # what JSON writes here TOML does not read
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False, default=str)
    return text.replace("\x7f", "\\u007f")  # the one control character JSON leaves as it is and TOML refuses


class _Sources:
    """Where each key was written: a line of the file, or a --set option."""

    def __init__(self, text: str, where: str) -> None:
        self._lines, self._where, self._set = text.splitlines(), where, dict[str, str]()

    def came_from(self, key: str, option: str) -> None:
        self._set[key] = option

    def of(self, key: str) -> str:
        """Returns where ``key`` was written, or the table it is in; the file where even that cannot be found."""
        if key in self._set:
            return f"--set {self._set[key]}"
        section, _, name = key.rpartition(".")
        inside = ""
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
                inside = header[1]
                if inside == key:
                    return f"{self._where}, line {number}"
            written = re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)
            if written and f"{inside}.{written[1]}".strip(".") == f"{section}.{name}".strip("."):
                return f"{self._where}, line {number}"
        return self.of(section) if section else self._where


def _apply(raw: dict[str, Any], change: str, sources: _Sources) -> None:
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected key=value, e.g. --set train.learning-rate=0.05")
    if key not in all_keys():
        raise ConfigError(f"--set {change}: unknown key '{key}'.{nearest(key, all_keys())}")
    *sections, name = key.split(".")
    table = raw
    for depth, section in enumerate(sections, 1):
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            dotted = ".".join(sections[:depth])
            raise ConfigError(f"{sources.of(dotted)}: '{dotted}' must be a table, got {table!r}")
    table[name] = parse_value(text)
    sources.came_from(key, change)


def _build(cls: type, raw: dict[str, Any], path: tuple[str, ...], sources: _Sources) -> Any:
    hints = typing.get_type_hints(cls)
    names = {_kebab(f.name): f.name for f in fields(cls)}
    values = {}
    for key, value in raw.items():
        dotted = ".".join((*path, key))
        if key not in names:
            what = "key" if path else "section or key"
            raise ConfigError(f"{sources.of(dotted)}: unknown {what} '{dotted}'.{nearest(key, names)}")
        kind = hints[names[key]]
        if is_dataclass(kind):
            if not isinstance(value, dict):
                raise ConfigError(f"{sources.of(dotted)}: '{dotted}' must be a table [{dotted}], got {value!r}")
            values[names[key]] = _build(typing.cast(type, kind), value, (*path, key), sources)
        else:
            values[names[key]] = _typed(kind, value, dotted, sources)
    try:
        return cls(**values)
    except ConfigError as error:
        told = [sources.of(".".join((*path, key))) for key in raw if re.search(rf"\b{re.escape(key)}\b", str(error))]
        raise ConfigError(f"{told[0] if told else sources.of('.'.join(path))}: {error}") from None


def _typed(kind: Any, value: Any, dotted: str, sources: _Sources) -> Any:
    if type(value) in (int, float) and kind in (int, float) and not abs(value) < 2**63:
        limit = "finite" if isinstance(value, float) and not math.isfinite(value) else "below 2^63"
        raise ConfigError(f"{sources.of(dotted)}: {dotted} must be {limit}, got {value!r:.60}")
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float, str, bool) and type(value) is kind:
        return value
    if typing.get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    wanted = {int: "a whole number", float: "a number", str: "a string in quotes", bool: "true or false"}
    raise ConfigError(f"{sources.of(dotted)}: {dotted} must be {wanted.get(kind, 'a list of strings')}, got {value!r}")


def _tables(record: Any, path: tuple[str, ...], comments: bool) -> list[str]:
    """Returns the lines of the tables in ``record``, theirs after them."""
    out = []
    for f in fields(record):
        inner, at = getattr(record, f.name), (*path, _kebab(f.name))
        if is_dataclass(inner):
            doc = (inner.__doc__ or "").partition(": ")[2]
            out += ["", *([f"# {doc}"] if comments and doc else []), f"[{'.'.join(at)}]"]
            out += [*_lines(inner, comments), *_tables(inner, at, comments)]
    return out


def _keys(cls: type, path: tuple[str, ...]) -> list[str]:
    """Returns the keys of ``cls``, those of its tables after its own."""
    hints, own, below = typing.get_type_hints(cls), [], []
    for f in fields(cls):
        at, kind = (*path, _kebab(f.name)), hints[f.name]
        if is_dataclass(kind):
            below += _keys(typing.cast(type, kind), at)
        else:
            own.append(".".join(at))
    return own + below


def _lines(record: Any, comments: bool) -> list[str]:
    out = []
    for f in fields(record):
        value = getattr(record, f.name)
        if not is_dataclass(value):
            out.append(f"{_kebab(f.name)} = {as_toml(value)}" + (f"  # {f.metadata['doc']}" if comments else ""))
    return out


def _kebab(name: str) -> str:
    return name.replace("_", "-")
