"""Which kind a part is, and which of that kind's laws hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import Any

from device_sim.check.law import Broken, Law
from device_sim.check.laws import LAWS
from fl_mobile.errors import ConfigError, FlMobileError, check_known
from fl_mobile.table import TABLES, defined_at, is_own, load, told_with_place

HOMES = (
    "device_sim.experiment.experiment",  # schedule
    "device_sim.fleet.availability.presence",
    "device_sim.fleet.devices.links",
    "device_sim.fleet.devices.profiles",
    "export.convert.recipes",
    "fl_mobile.codecs",
    "fl_mobile.tasks",
)
"""Modules that hold tables; what they import holds the others."""

MODEL = "model"


@dataclass(frozen=True)
class Found:
    """What became of one law.

    Attributes:
        law: The promise.
        broken: What is against it, with file and line of what raised, or else of the part; empty if it holds.
    """

    law: str
    broken: str = ""


def check_part(name: str, kind: str = "") -> tuple[str, list[Found]]:
    """Returns the kind of a part and what became of its laws. Imports and runs the code that it names.

    Args:
        name: ``package.module:name``.
        kind: A row of `LAWS`; needed where the part is a function, which may be of several kinds.

    Raises:
        ConfigError: ``name`` leads nowhere, or to nothing that a table holds.
    """
    if not is_own(name):
        raise ConfigError(f"check {name}: expected package.module:name")
    for home in HOMES:
        import_module(home)
    value = load(kind or "part", name)
    kind = kind or _kind_of(name, value)
    check_known("kind", kind, LAWS)
    if kind == MODEL:
        row: Any = name
    else:
        TABLES[kind].admit(name)
        row = TABLES[kind][name]
    return kind, [_tried(law, row, name) for law in LAWS[kind]]


def _kind_of(name: str, value: Any) -> str:
    kinds: Sequence[str] = [kind for kind, table in TABLES.items() if isinstance(value, table.of)]
    if isinstance(value, FunctionType):
        raise ConfigError(f"check {name}: a function may be of several kinds; say --kind {MODEL}, {', '.join(kinds)}")
    if not kinds:
        raise ConfigError(
            f"check {name}: a {type(value).__name__} is no row of a table. Expected one of"
            f" {', '.join(one.__name__ for table in TABLES.values() for one in table.of if one is not FunctionType)}."
        )
    return kinds[0]


def _tried(law: Law, row: Any, name: str) -> Found:
    try:
        law.holds(row, name)
    except Broken as error:
        return Found(law.text, f"{error}{defined_at(name)}")
    except FlMobileError as error:
        return Found(law.text, str(error))
    except Exception as error:  # somebody's own code may raise anything
        return Found(law.text, told_with_place(error))
    return Found(law.text)
