"""Shadowing a method or an attribute of one Keras layer for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def swap(layer: Any, name: str, value: Any) -> Callable[[], None]:
    """Shadows an attribute on the instance; returns what removes it again. Keras' own tracking is not involved."""
    had, before = name in vars(layer), vars(layer).get(name)
    object.__setattr__(layer, name, value)

    def put_back() -> None:
        if had:
            object.__setattr__(layer, name, before)
        else:
            object.__delattr__(layer, name)

    return put_back
