"""Prints the net of docs/combinations.md, three seeds a cell: ``python -m tests.crossings.measure_net [ALGORITHM]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from tests.crossings.net import ALGORITHMS, CODECS, Row, every_row, mean_accuracy, met, reference, refusal

SEEDS = (0, 1, 2)
COLUMNS: dict[str, Row] = {
    "plain": Row(),
    "ef": Row(memory="error-feedback"),
    "cafe": Row(memory="cafe"),
    "over": Row(selection="over 1.5"),
    "ef, over": Row(memory="error-feedback", selection="over 1.5"),
    "cafe, over": Row(memory="cafe", selection="over 1.5"),
    "all": Row(participation="all"),
    "ef, all": Row(memory="error-feedback", participation="all"),
    "cafe, all": Row(memory="cafe", participation="all"),
    "async": Row(mode="asynchronous"),
    "async, all": Row(mode="asynchronous", participation="all"),
}
"""Short names of what is not refused, whatever the codec; ``plain`` is synchronous, exact, 40 %, without a memory."""


def lines(algorithms: Sequence[str]) -> Iterator[str]:
    """Yields the table's lines: float32 in both participations, then every row that is played."""
    yield f"| algorithm | codec | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    known = set(every_row())
    for algorithm in algorithms:
        whole = [reference(algorithm, participation, SEEDS) for participation in ("40 %", "all")]
        yield f"| **{algorithm}** | float32: {whole[0]:.1f}, all {whole[1]:.1f} |{' |' * len(COLUMNS)}"
        for codec in CODECS:
            rows = [row._replace(codec=codec) for row in COLUMNS.values()]
            yield f"| | {codec} | {' | '.join(_cell(algorithm, row, row in known) for row in rows)} |"


def _cell(algorithm: str, row: Row, played: bool) -> str:
    changes = met(algorithm, row)
    if refusal(changes):
        return "–"
    if not played:
        return "="
    begun = time.process_time()
    accuracy, size = mean_accuracy(changes, SEEDS)
    seconds = time.process_time() - begun
    print(f"{algorithm}, {row}: {accuracy:.2f} %, {size:.0f} B, {seconds:.1f} s", file=sys.stderr, flush=True)
    return f"{accuracy:.1f}"


if __name__ == "__main__":
    for line in lines(sys.argv[1:] or list(ALGORITHMS)):
        print(line, flush=True)
