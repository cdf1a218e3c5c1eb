"""TOML text ↔ `Experiment`: kebab-case keys, strict types, and errors that name the line and the nearest key."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.idle import default_of, idle_keys, is_default, without
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


def parse_experiment(
    text: str, changes: Sequence[str] = (), where: str = "experiment", *, searched: bool = False
) -> Experiment:
    """Returns the experiment of TOML text; see `read_experiment`.

    A key that does nothing beside what another one says is refused. It is left out where it was written before a
    change made it so, and where it has its default, as in files of earlier versions.

    Args:
        searched: Whether the changes are a trial of a search: one that does nothing beside another one is left out too.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    sources = _Sources(text, where, searched)
    load_rows(changes)
    known = all_keys() if changes else []
    for change in changes:
        _apply(raw, change, known, sources)
    return typing.cast(Experiment, _build(Experiment, raw, (), sources))


def to_toml(experiment: Experiment, *, comments: bool = False) -> str:
    """Returns TOML that `parse_experiment` turns back into the same experiment; keys that do nothing are left out."""
    idle = idle_keys(experiment)
    return "\n".join([*_lines(experiment, (), comments, idle), *_tables(experiment, (), comments, idle)]) + "\n"


def load_rows(changes: Sequence[str]) -> None:
    """Loads rows of one's own that ``--set`` changes name, so that their parameters are keys.

    Raises:
        ConfigError: One of them is none.
    """
    tables = _tables_by_key()
    for change in changes:
        key, _, value = (part.strip() for part in change.partition("="))
        if key in tables:
            tables[key].admit(parse_value(value))


@cache
def _tables_by_key() -> dict[str, Any]:
    """Returns key that names a row with parameters → the table of its rows."""
    sections = {_kebab(f.name): _hints_of(Experiment)[f.name] for f in fields(Experiment)}
    return {
        f"{name}.{f.metadata['by']}": f.metadata["rows"]
        for name, section in sections.items()
        for f in (fields(section) if is_dataclass(section) else ())
        if "rows" in f.metadata
    }


def all_keys() -> list[str]:
    """Returns every key as ``section.key`` or ``section.table.key``, in file order."""
    return _keys(Experiment, ())


def values_by_key(experiment: Experiment) -> dict[str, Any]:
    """Returns every key of an experiment with its value; parameters of rows that it does not name are not there."""
    return _values(experiment, ())


def _values(record: Any, path: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for f in fields(record):
        value, at = getattr(record, f.name), (*path, _kebab(f.name))
        if is_dataclass(value):
            out |= _values(value, path if "rows" in f.metadata else at)
        else:
            out[".".join(at)] = value
    return out


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

    def __init__(self, text: str, where: str, searched: bool) -> None:
        self._lines, self._where, self._set, self._searched = text.splitlines(), where, dict[str, str](), searched

    def written(self, key: str, value: Any) -> str:
        """Returns how ``key`` is given a value, where it was written."""
        if key not in self._set:
            return f"{key.rpartition('.')[2]} = {as_toml(value)}"
        bare = isinstance(value, str) and parse_value(value) == value
        return f"--set {shlex.quote(f'{key}={value if bare else as_toml(value)}')}"

    def came_from(self, key: str, option: str) -> None:
        self._set[key] = option

    def forgives(self, key: str, by: Sequence[str], *, default: bool) -> bool:
        """Returns whether a key that does nothing is left out without a word; else it is refused.

        Args:
            by: Keys that make it do nothing.
            default: Whether it has its default.
        """
        overruled = any(other in self._set for other in by)
        return overruled and self._searched if key in self._set else overruled or default

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


def _apply(raw: dict[str, Any], change: str, known: Sequence[str], sources: _Sources) -> None:
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected key=value, e.g. --set train.learning-rate=0.05")
    if key not in known:
        raise ConfigError(f"--set {change}: unknown key '{key}'.{nearest(key, known)}")
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
    hints, rows = _hints_of(cls), _chosen_rows(cls, raw, path, sources)
    values: dict[str, Any] = {}
    places = {_kebab(f.name): (values, f, hints[f.name]) for f in fields(cls) if "rows" not in f.metadata}
    given: dict[str, dict[str, Any]] = {name: {} for name in rows}
    for name, (_, kind) in rows.items():
        inner = _hints_of(kind)
        places |= {_kebab(f.name): (given[name], f, inner[f.name]) for f in fields(kind)}
    for key, value in raw.items():
        dotted = ".".join((*path, key))
        if key not in places:
            _check_idle(
                cls=cls,
                key=key,
                value=value,
                path=path,
                named={by: raw.get(by) for by, _ in rows.values()},
                sources=sources,
            )
            continue
        into, f, kind = places[key]
        if is_dataclass(kind):
            if not isinstance(value, dict):
                raise ConfigError(f"{sources.of(dotted)}: '{dotted}' must be a table [{dotted}], got {value!r}")
            into[f.name] = _build(typing.cast(type, kind), value, (*path, key), sources)
        else:
            into[f.name] = _typed(f, kind, value, dotted=dotted, sources=sources)
    if not path:
        values = _without_idle(values, raw, sources)
    try:
        values |= {name: kind(**given[name]) for name, (_, kind) in rows.items()}
        return cls(**values)
    except ConfigError as error:
        told = [sources.of(".".join((*path, key))) for key in raw if re.search(rf"\b{re.escape(key)}\b", str(error))]
        raise ConfigError(f"{told[0] if told else sources.of('.'.join(path))}: {error}") from None


def _chosen_rows(
    cls: type, raw: dict[str, Any], path: tuple[str, ...], sources: _Sources
) -> dict[str, tuple[str, type]]:
    """Returns, for each field with a row's parameters, the key that names the row, and their record."""
    out = {}
    for f in fields(cls):
        if "rows" in f.metadata:
            by, table = f.metadata["by"], f.metadata["rows"]
            name = raw.get(by, default_of(cls, by))
            table.admit(name)
            if isinstance(name, str) and name not in table:
                dotted = ".".join((*path, by))
                raise ConfigError(f"{sources.of(dotted)}: unknown {dotted} '{name}'.{nearest(name, table)}")
            out[f.name] = (by, table[name if isinstance(name, str) else default_of(cls, by)].parameters)
    return out


def _check_idle(
    cls: type, key: str, value: Any, path: tuple[str, ...], named: Mapping[str, Any], sources: _Sources
) -> None:
    """Raises `ConfigError` for a key that no field has: it is another row's, or nobody's.

    Args:
        named: Key that names a row → what the file says; None takes the default.
    """
    dotted = ".".join((*path, key))
    for f in (f for f in fields(cls) if "rows" in f.metadata):
        by, defaults = f.metadata["by"], _parameters(f, key)
        if defaults:
            decides = ".".join((*path, by))
            if sources.forgives(dotted, [decides], default=value in defaults.values()):
                return
            name = named[by] or default_of(cls, by)
            raise ConfigError(
                f"{sources.of(dotted)}: {dotted} does nothing with {decides} '{name}'; it is read with"
                f" {', '.join(defaults)}"
            )
    what, names = "key" if path else "section or key", [k.rpartition(".")[2] for k in _keys(cls, ())]
    raise ConfigError(
        f"{sources.of(dotted)}: unknown {what} '{dotted}'.{nearest(key, [*map(_kebab, _tables_of(cls)), *names])}"
    )


def _parameters(f: Field[Any], key: str) -> dict[str, Any]:
    """Returns the rows whose parameters have ``key``, with its default in each."""
    records = {name: row.parameters for name, row in f.metadata["rows"].items()}
    return {name: default_of(r, p.name) for name, r in records.items() for p in fields(r) if _kebab(p.name) == key}


def _without_idle(values: dict[str, Any], raw: dict[str, Any], sources: _Sources) -> dict[str, Any]:
    """Returns the sections less what does nothing in them, as far as that is forgiven."""
    whole = {f.name: values.get(f.name, default_of(Experiment, f.name)) for f in fields(Experiment)}
    view = SimpleNamespace(**whole)
    for key, idle in idle_keys(view).items():
        if not _written(raw, key):
            continue
        if not sources.forgives(key, idle.by, default=is_default(view, key)):
            raise ConfigError(f"{sources.of(key)}: {idle.refusal(key, view)}")
        whole = without(whole, key)
    return whole


def _written(raw: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(raw, dict) or name not in raw:
            return False
        raw = raw[name]
    return True


def _typed(f: Field[Any], kind: Any, value: Any, *, dotted: str, sources: _Sources) -> Any:
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
    raise ConfigError(
        f"{sources.of(dotted)}: {dotted} must be {wanted.get(kind, 'a list of strings')}, got {value!r:.60}; e.g."
        f" {sources.written(dotted, f.metadata.get('example', f.default))}"
    )


def _tables(record: Any, path: tuple[str, ...], comments: bool, idle: Collection[str]) -> list[str]:
    """Returns the lines of the tables in ``record``, theirs after them."""
    out = []
    for f in fields(record):
        inner, at = getattr(record, f.name), (*path, _kebab(f.name))
        if f.name in _tables_of(record.__class__):
            doc = (inner.__doc__ or "").partition(": ")[2]
            out += ["", *([f"# {doc}"] if comments and doc else []), f"[{'.'.join(at)}]"]
            out += [*_lines(inner, at, comments, idle), *_tables(inner, at, comments, idle)]
    return out


@cache
def _hints_of(cls: type) -> dict[str, Any]:
    """Returns the types of a record's fields; resolving them is most of what reading an experiment takes."""
    return typing.get_type_hints(cls)


@cache
def _tables_of(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if is_dataclass(_hints_of(cls)[f.name]))


def _keys(cls: type, path: tuple[str, ...]) -> list[str]:
    """Returns the keys of ``cls``, those of its tables after its own; of parameters those of every row."""
    hints, own, below = _hints_of(cls), [], []
    for f in fields(cls):
        kind = hints[f.name]
        if is_dataclass(kind):
            below += _keys(typing.cast(type, kind), (*path, _kebab(f.name)))
        elif "rows" in f.metadata:
            names = dict.fromkeys(p.name for row in f.metadata["rows"].values() for p in fields(row.parameters))
            own += [".".join((*path, _kebab(name))) for name in names]
        else:
            own.append(".".join((*path, _kebab(f.name))))
    return own + below


def _lines(record: Any, path: tuple[str, ...], comments: bool, idle: Collection[str]) -> list[str]:
    """Returns a line for every key of a section; with comments, those that do nothing now stand behind a #."""
    out = []
    for f in fields(record):
        value, dotted = getattr(record, f.name), ".".join((*path, _kebab(f.name)))
        if "rows" in f.metadata:
            out += _lines(value, path, comments, idle)
            out += _others(f, type(value)) if comments else []
        elif f.name not in _tables_of(record.__class__):
            line = f"{_kebab(f.name)} = {as_toml(value)}" + (f"  # {f.metadata['doc']}" if comments else "")
            out += [line] if dotted not in idle else [f"# {line}"] if comments else []
    return out


def _others(f: Field[Any], chosen: type) -> list[str]:
    """Returns the parameters of rows that are not chosen, behind a #, with the rows that read them."""
    records = [row.parameters for row in f.metadata["rows"].values()]
    read = {p.name for p in fields(chosen)}
    others = {p.name: p for record in records for p in fields(record) if p.name not in read}
    return [
        f"# {_kebab(name)} = {as_toml(p.default)}  # {', '.join(_parameters(f, _kebab(name)))}: {p.metadata['doc']}"
        for name, p in others.items()
    ]


def _kebab(name: str) -> str:
    return name.replace("_", "-")
