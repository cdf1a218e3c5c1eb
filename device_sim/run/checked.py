"""JSON objects as frozen records, every field checked against its annotation: files of a run may be damaged."""

from __future__ import annotations

import functools
import sys
import typing
from collections.abc import Callable, Hashable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from fl_mobile.errors import RunError

_T = TypeVar("_T")


def record_of(kind: type[_T], value: Any, where: str) -> _T:
    """Returns a frozen record from a JSON object, every field checked against its annotation.

    Raises:
        RunError: A field that is missing, unknown, of another type, negative where it counts, or not finite.
    """
    hints = _hints(typing.cast(Any, kind))
    if not isinstance(value, dict):
        raise RunError(f"{where}: expected the fields of a {kind.__name__}, got {value!r:.60}")
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    if odd := (needed - value.keys()) | (value.keys() - hints.keys()):
        raise RunError(
            f"{where}: expected the fields of a {kind.__name__} of this version; missing or unknown:"
            f" {', '.join(sorted(map(str, odd)))}. Restore the file, or use the version of fl-mobile that made it."
        )
    for name, found in value.items():
        fits, wanted = FIELD_KINDS.get(hints[name], _CHECKED)
        if not fits(found):
            raise RunError(f"{where}: {name} must be {wanted}, got {found!r:.60}")
    return kind(**value)


@functools.cache  # a run may have thousands of rounds
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    # A whole number may be too large to be a float, which `math.isfinite` would not survive.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(fits, value))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_CHECKED: tuple[Callable[[Any], bool], str] = (lambda _: True, "a record")

FIELD_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_count, "a whole number ≥ 0"),
    float: (_number, "a finite number"),
    float | None: (_or_none(_number), "a finite number or null"),
    str: (_is(str), "text"),
    dict[str, int]: (lambda d: isinstance(d, dict) and all(map(_count, d.values())), "counts by reason"),
    dict[str, float]: (lambda d: isinstance(d, dict) and all(map(_number, d.values())), "finite numbers by name"),
    dict[str, str]: (_is(dict), "texts by name"),
    tuple[int, ...]: (_each(_count), "a list of whole numbers ≥ 0"),
    tuple[float, ...]: (_each(_number), "a list of finite numbers"),
    tuple[str, ...]: (_each(_is(str)), "a list of texts"),
    tuple[float | None, ...]: (_each(_or_none(_number)), "a list of finite numbers, or null"),
}
"""Annotation → (whether a value fits, how an error calls what fits). Other annotations are records, checked already."""
