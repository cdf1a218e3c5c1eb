"""What becomes of several packets of which any may be refused: a list of results and, in their places, the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from fl_mobile.errors import WireError

T = TypeVar("T")
U = TypeVar("U")


def attempt(work: Callable[..., T], *args: Any) -> T | WireError:
    """Returns what ``work(*args)`` returns, or the `WireError` that it raises."""
    try:
        return work(*args)
    except WireError as error:
        return error


def those_left(outcomes: Iterable[T | WireError]) -> list[T]:
    """Returns the results alone."""
    return [one for one in outcomes if not isinstance(one, WireError)]


def replaced(outcomes: Sequence[T | WireError], results: Iterable[U | WireError]) -> list[U | WireError]:
    """Returns the outcomes with others, one after another, in the places of the results."""
    following = iter(results)
    return [one if isinstance(one, WireError) else next(following) for one in outcomes]
