"""How a section of the experiment declares its keys: default, help text, and what must be above 0."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from fl_mobile.errors import ConfigError


def key(default: Any, doc: str) -> Any:
    """Returns a field with its help text, which `fl-mobile new` writes above it."""
    return field(default=default, metadata={"doc": doc})


def positive(section: str, **values: float) -> None:
    """Raises `ConfigError` naming the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name.replace('_', '-')} must be above 0, got {value}")
