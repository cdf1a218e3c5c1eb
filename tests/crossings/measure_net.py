"""Prints the table of docs/combinations.md, three seeds a cell: ``python -m tests.crossings.measure_net``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.crossings.net import ALGORITHMS, Row, mean_accuracy, met, reference, refusal

SEEDS = (0, 1, 2)
COLUMNS: dict[str, Row] = {
    "q8": Row(codec="q8+deflate"),
    "default": Row(),
    "+ error-feedback": Row(memory="error-feedback"),
    "+ both": Row(memory="error-feedback", selection="over 1.5"),
    "asynchronous": Row(mode="asynchronous"),
    "+ over-selection": Row(selection="over 1.5"),
    "+ cafe": Row(memory="cafe"),
    "all take part": Row(participation="all"),
}


def lines(columns: dict[str, Row]) -> Iterator[str]:
    """Yields the table's lines."""
    yield f"| algorithm | float32 | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 2) + "|"
    for algorithm in ALGORITHMS:
        cells = [f"{reference(algorithm, '40 %', SEEDS):.1f}"]
        for row in columns.values():
            changes = met(algorithm, row)
            cells.append("refused" if refusal(changes) else f"{mean_accuracy(changes, SEEDS)[0]:.1f}")
            print(algorithm, row, cells[-1], file=sys.stderr, flush=True)
        yield f"| {algorithm} | {' | '.join(cells)} |"


if __name__ == "__main__":
    for line in lines(dict(list(COLUMNS.items())[: int(sys.argv[1])] if len(sys.argv) > 1 else COLUMNS)):
        print(line, flush=True)
