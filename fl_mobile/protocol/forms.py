"""JSON from strangers: every field by name and type, nothing beside them, nothing deep."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from fl_mobile.errors import WireError

Read = Callable[[Any], Any]
"""A JSON value → what it means; raises `ValueError` that says what was expected."""

MOST_TEXT = 200


def parse(body: bytes, form: Mapping[str, Read], *, optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the fields of a JSON object.

    Args:
        form: Every field it may have.
        optional: Values of those that may be absent.

    Raises:
        WireError: It is not such an object; reason ``json``.

    >>> parse(b'{"held": 3}', {"held": whole(0, 9)})
    {'held': 3}
    """
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError("json", f"expected a JSON object: {error}") from None
    return read(value, form, optional=optional)


def read(value: Any, form: Mapping[str, Read], *, optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """As `parse`, of a value that is JSON already."""
    if not isinstance(value, dict):
        raise WireError("json", f"expected a JSON object, got {type(value).__name__}")
    if unknown := sorted(map(str, value.keys() - form.keys())):
        raise WireError("json", f"unknown field '{unknown[0][:MOST_TEXT]}'; known: {', '.join(sorted(form))}")
    out = dict(optional or {})
    for name, meaning in form.items():
        if name in value:
            try:
                out[name] = meaning(value[name])
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise WireError("json", f"field '{name}': {error}") from None
        elif name not in out:
            raise WireError("json", f"field '{name}' is missing")
    return out


def whole(least: int, most: int) -> Read:
    """Returns a reader of whole numbers in a range."""

    def reader(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return value

    return reader


def number(value: Any) -> float:
    """Returns a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def flag(value: Any) -> bool:
    """Returns true or false."""
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def text(most: int = MOST_TEXT) -> Read:
    """Returns a reader of short text."""

    def reader(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(f"expected text of at most {most} characters")
        return value

    return reader


def hexadecimal(value: Any) -> str:
    """Returns a SHA-256 as 64 lower-case digits."""
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("expected a SHA-256, 64 hexadecimal digits")
    return value


def flat(most: int) -> Read:
    """Returns a reader of an object of at most so many short texts, numbers, flags or nulls."""

    def reader(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise ValueError(f"expected an object of at most {most} fields")
        for key, each in value.items():
            plain = each is None or isinstance(each, bool) or (isinstance(each, int | float) and math.isfinite(each))
            if len(key) > MOST_TEXT or not (plain or (isinstance(each, str) and len(each) <= 4096)):
                raise ValueError("expected texts, numbers, true, false or null")
        return value

    return reader


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
