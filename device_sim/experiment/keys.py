"""How a section of the experiment declares its keys: default, help text, and what must be above 0."""

from __future__ import annotations

import math
from dataclasses import field, fields, is_dataclass
from typing import Any

from fl_mobile.errors import ConfigError


def key(default: Any, doc: str) -> Any:
    """Returns a field with its help text, which `fl-mobile new` writes above it."""
    return field(default=default, metadata={"doc": doc})


def check_finite(record: Any, path: tuple[str, ...] = ()) -> None:
    """Raises `ConfigError` naming the first number of a section, or of the tables in it, that is NaN or Inf."""
    for f in fields(record):
        value, at = getattr(record, f.name), (*path, f.name.replace("_", "-"))
        if is_dataclass(value):
            check_finite(value, at)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{'.'.join(at)} must be finite, got {value}")


def positive(section: str, **values: float) -> None:
    """Raises `ConfigError` naming the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name.replace('_', '-')} must be above 0, got {value}")
