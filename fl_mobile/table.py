"""Tables of rows by name, and how a row of one's own is found: as ``package.module:name``, or by an entry point.

>>> import fl_mobile.table as table
>>> depths = table.Table("depth", int, {"shallow": 1})
>>> "shallow" in depths, "deep" in depths, list(depths)
(True, False, ['shallow'])

An installed package registers rows with entry points of group ``fl_mobile.<kind>``; their names are then used as those
of the table. A row is loaded, and its code run, when an experiment of the user's names it, and by nothing else: what
came over a wire or lies in a bundle may name rows that are there, and never code.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from fl_mobile.errors import ConfigError, FlMobileError, check_known, nearest

R = TypeVar("R")

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

TABLES: dict[str, Table[Any]] = {}
"""Kind → the table of it, once the module that holds it is imported."""


_PROMISED: dict[str, set[str]] = {}


def check_row(what: str, name: str, table: Table[Any], others: Collection[str] = ()) -> None:
    """Raises `ConfigError` that names ``what`` unless the user's ``name`` is a row of ``table``, loaded now if need be.

    Args:
        others: Names that are fine too.
    """
    if name not in others:
        table.admit(name)
        if name not in table:
            check_known(what, name, [*table, *others])


def own_rows() -> list[tuple[str, str]]:
    """Returns kind and name of every row of one's own that was loaded: what another process has to `admit_rows`."""
    return [(kind, name) for kind, table in TABLES.items() for name in table.own()]


def admit_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Lets tables load what `own_rows` returned in another process, each row when it is first asked for."""
    for kind, name in rows:
        _PROMISED.setdefault(kind, set()).add(name)


class Table(dict[str, R]):
    """Rows by name, read as a dict.

    Args:
        kind: What a row is, in one word: the end of the entry point group ``fl_mobile.<kind>``.
        of: The class that rows are of; several may stand for one another.
        rows: Those that come with the package.
        check: Refuses a row of one's own with `ConfigError`; None refuses nothing.
    """

    def __init__(
        self,
        kind: str,
        of: type | tuple[type, ...],
        rows: Mapping[str, R],
        check: Any = None,
    ) -> None:
        super().__init__(rows)
        self.kind, self.of, self._check = kind, of if isinstance(of, tuple) else (of,), check
        self._shipped = frozenset(rows)
        TABLES[kind] = self

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in _PROMISED.get(self.kind, ())

    def __missing__(self, name: str) -> R:
        if name not in _PROMISED.get(self.kind, ()):
            raise KeyError(name)
        self[name] = self._load(name)
        return self[name]

    def admit(self, name: object) -> None:
        """Loads a row of one's own, so that it is in the table from now on; any other name changes nothing.

        To be called with names that the user gave, never with those of a file or message of somebody else: it runs the
        code that they lead to.

        Raises:
            ConfigError: ``name`` leads to code that cannot be imported, or to something else than a row.
        """
        if isinstance(name, str) and not super().__contains__(name) and (is_own(name) or registered(self.kind, name)):
            self[name] = self._load(name)

    def own(self) -> list[str]:
        """Returns the names of the rows that `admit` has loaded."""
        others = (name for name in self if name not in self._shipped)
        return [name for name in others if is_own(name) or registered(self.kind, name)]

    def _load(self, name: str) -> R:
        point = registered(self.kind, name)
        value = load(self.kind, point.value if point else name)
        if not isinstance(value, self.of):
            wanted = " or ".join(f"{one.__name__} of {one.__module__}" for one in self.of)
            raise ConfigError(f"{self.kind} {name}: expected a {wanted}, got {type(value).__name__}{place_of(value)}")
        if self._check is not None:
            self._check(name, value)
        row: R = value  # type: ignore[assignment]
        return row


def is_own(name: object) -> bool:
    """Returns whether ``name`` is ``package.module:name``; whether that is there is another question.

    >>> is_own("my.losses:TRIMMED"), is_own("fedavg"), is_own("topk:0.1")
    (True, False, False)
    """
    return isinstance(name, str) and bool(_OWN.fullmatch(name))


def registered(kind: str, name: str) -> EntryPoint | None:
    """Returns the entry point of that name in group ``fl_mobile.<kind>``; loads nothing."""
    return _installed(kind, tuple(sys.path)).get(name)


@cache
def _installed(kind: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Returns the entry points of a kind by name, of all packages on ``path``; looking opens a file a package."""
    points = list(entry_points(group=f"fl_mobile.{kind}"))
    return {point.name: point for point in reversed(points)}  # of two with one name the first on the path


def load(kind: str, name: str) -> Any:
    """Returns what ``package.module:name`` is; the working directory is looked in first.

    Raises:
        ConfigError: It cannot be imported; names file and line of what failed.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with working_directory_first():
            importlib.invalidate_caches()  # the file may be younger than this process
            module = importlib.import_module(module_name)
    except Exception as error:  # importing runs somebody's code
        raise ConfigError(
            f"{kind} {name}: cannot import {module_name}: {told_with_place(error)}. Looked in {os.getcwd()} and the"
            " installed packages."
        ) from error
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(f"{kind} {name}: {module.__file__} has no '{attribute}'.{nearest(attribute, known)}")
    return getattr(module, attribute)


def told_with_place(error: BaseException) -> str:
    """Returns what an error says on one line, with the file and line of somebody's code that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{_said(error)}{at}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def source_sha256(name: str) -> str:
    """Returns SHA-256 (hex) of the file that holds ``package.module:name``, empty if there is none; runs no code in it.

    Of what that file imports nothing is covered.
    """
    places: Iterable[str] = (os.getcwd(), *sys.path)
    parts, spec = name.partition(":")[0].split("."), None
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), list(places))
        if spec is None:
            return ""
        places = spec.submodule_search_locations or ()
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


@contextlib.contextmanager
def working_directory_first() -> Iterator[None]:
    """Lets imports inside the block find modules of the working directory; ``sys.path`` is as it was afterwards."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def place_of(value: Any) -> str:
    """Returns file and line of a function, in brackets and to be appended; empty of what is none."""
    code = getattr(value, "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def defined_at(name: str) -> str:
    """Returns file and line of what ``package.module:name`` leads to, in brackets; empty if that is not known.

    >>> defined_at("fl_mobile.table:TABLES").endswith(")")
    True
    """
    module, _, attribute = name.partition(":")
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        body = ast.parse(Path(file or "").read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return ""
    for node in body:
        targets = getattr(node, "targets", [node.target] if isinstance(node, ast.AnnAssign) else [])
        inside = (one for target in targets for one in ast.walk(target))
        names = {one.id for one in inside if isinstance(one, ast.Name)}
        if attribute in names | {getattr(node, "name", "")}:
            return f" ({file}, line {node.lineno})"
    return f" ({file})"


def rows_in_use(kinds: Collection[str] = ()) -> str:
    """Returns the user's own rows with file and line, as the end of a message; empty if there are none.

    Args:
        kinds: These alone; all without it.
    """
    named = [(kind, name) for kind, name in own_rows() if not kinds or kind in kinds]
    told = (f"{kind} {name}{defined_at(_leads_to(kind, name))}" for kind, name in named)
    return f"; parts of your own in use: {', '.join(told)}" if named else ""


def _leads_to(kind: str, name: str) -> str:
    point = registered(kind, name)
    return point.value if point else name


@contextlib.contextmanager
def own_parts_named() -> Iterator[None]:
    """Turns an exception of the user's own part inside the block into a line that names it, its file and its line.

    Where none of them is on the stack, what one of them returned may be what failed: then all in use are named.

    Raises:
        ConfigError: In place of what is no `FlMobileError`, where parts of the user's own are in use.
    """
    try:
        yield
    except FlMobileError:
        raise
    except Exception as error:
        rows: dict[str | None, list[str]] = {}
        for kind, name in own_rows():
            file = sys.modules[_leads_to(kind, name).partition(":")[0]].__file__
            rows.setdefault(file, []).append(f"{kind} {name}")
        if not rows:
            raise
        stack = traceback.extract_tb(error.__traceback__)
        if frame := next((frame for frame in reversed(stack) if frame.filename in rows), None):
            named = " or ".join(rows[frame.filename])
            raise ConfigError(f"{named}: {_said(error)} ({frame.filename}, line {frame.lineno})") from error
        raise ConfigError(
            f"{told_with_place(error)}{rows_in_use()}. What one of them returned may be why: `fl-mobile check NAME`"
            " tries what its kind promises."
        ) from error
