"""The Pareto front, of whatever has costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def pareto_front(items: Iterable[T], costs: Callable[[T], Sequence[float]]) -> list[T]:
    """Returns the items that no other equals in every cost and beats in one, in order of their last cost.

    Args:
        costs: Of an item, smaller is better in each; the last decides the order, then the one before.

    >>> pareto_front([(3, 1), (2, 2), (2, 3), (1, 4)], costs=lambda item: item)
    [(3, 1), (2, 2), (1, 4)]
    """
    priced = [(tuple(costs(item)), item) for item in items]
    front = [(mine, item) for mine, item in priced if not any(_dominates(other, mine) for other, _ in priced)]
    return [item for _, item in sorted(front, key=lambda pair: pair[0][::-1])]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
