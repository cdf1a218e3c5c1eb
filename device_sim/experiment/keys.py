"""How a section of the experiment declares its keys: default, help text, and what must be above 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any

from fl_mobile.errors import ConfigError
from fl_mobile.table import check_row


def key(default: Any, doc: str, example: Any = None) -> Any:
    """Returns a field with its help text, which `fl-mobile new` writes above it.

    Args:
        example: What a message shows where the default, an empty one, would not tell how the key is written.
    """
    return field(default=default, metadata={"doc": doc, "example": default if example is None else example})


def chosen(by: str, rows: Mapping[str, Any]) -> Any:
    """Returns a field with the parameters of the row that the key ``by`` names; their keys stand beside ``by``.

    Args:
        rows: A table whose rows have ``parameters``, the record that declares theirs.
    """
    return field(default=None, metadata={"doc": "", "by": by, "rows": rows})


def fill_chosen(section: Any, name: str) -> None:
    """Gives a section that has just been made the parameters of the rows it names.

    Raises:
        ConfigError: No such row, or the parameters of another one.
    """
    for f in fields(section):
        if "rows" not in f.metadata:
            continue
        by, rows, given = f.metadata["by"], f.metadata["rows"], getattr(section, f.name)
        row = getattr(section, by)
        check_row(f"{name}.{by}", row, rows)
        if given is None:
            object.__setattr__(section, f.name, rows[row].parameters())
        elif type(given) is not rows[row].parameters:
            raise ConfigError(
                f"{name}.{by} '{row}' takes the parameters {rows[row].parameters.__name__}, got {type(given).__name__}"
            )


def check_finite(record: Any, path: tuple[str, ...] = ()) -> None:
    """Raises `ConfigError` naming the first number of a section, or of the tables in it, that is NaN or Inf."""
    for f in fields(record):
        value, at = getattr(record, f.name), (*path, f.name.replace("_", "-"))
        if is_dataclass(value):
            check_finite(value, path if "rows" in f.metadata else at)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{'.'.join(at)} must be finite, got {value}")


def positive(section: str, **values: float) -> None:
    """Raises `ConfigError` naming the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name.replace('_', '-')} must be above 0, got {value}")
