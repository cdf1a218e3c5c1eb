"""All pairs: a short list of rows in which every two values of two axes meet at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

Row = dict[str, str]


def covering_rows(axes: Mapping[str, Sequence[str]], fits: Callable[[Row], bool]) -> list[Row]:
    """Returns rows, one value of every axis each, that hold every pair of values that some row can hold.

    Greedy and deterministic: each row starts at a pair nobody holds yet and takes, axis by axis, the value that brings
    most new pairs and still fits; where nothing fits, it takes back the last choice.

    Args:
        fits: Whether values of some axes can be together; of a pair that fits nowhere no row is made.
    """
    open_pairs = {
        frozenset({(a, x), (b, y)})
        for a, b in combinations(axes, 2)
        for x in axes[a]
        for y in axes[b]
        if fits({a: x, b: y})
    }
    rows: list[Row] = []
    for pair in sorted(open_pairs, key=lambda one: sorted(one)):
        if pair not in open_pairs:
            continue
        row = _completed(dict(sorted(pair)), axes, open_pairs, fits)
        open_pairs.discard(pair)
        if row is not None:
            rows.append(row)
            open_pairs -= {frozenset(two) for two in combinations(row.items(), 2)}
    return rows


def _completed(
    row: Row,
    axes: Mapping[str, Sequence[str]],
    open_pairs: set[frozenset[tuple[str, str]]],
    fits: Callable[[Row], bool],
) -> Row | None:
    missing = [axis for axis in axes if axis not in row]
    if not missing:
        return {axis: row[axis] for axis in axes}
    axis = missing[0]

    def gain(value: str) -> int:
        return sum(frozenset({(axis, value), other}) in open_pairs for other in row.items())

    for value in sorted(axes[axis], key=gain, reverse=True):
        longer = {**row, axis: value}
        if fits(longer) and (found := _completed(longer, axes, open_pairs, fits)):
            return found
    return None
