"""What the coordinator asks every device of its examples before round 1, as JSON: sums, never examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fl_mobile.client.sums import counts_question, moments_question
from fl_mobile.protocol.forms import read, whole
from fl_mobile.wire.sums import Question

MOMENTS, CLASSES = "moments", "classes"
ABOUT = (MOMENTS, CLASSES)
MOST_COLUMNS = 1 << 15
"""Or classes; their packet is at most `MOST_TEXT` in base64."""
MOST_TEXT = 1 << 20


@dataclass(frozen=True)
class Statistic:
    """One question.

    Attributes:
        about: ``"moments"``: number, sums and sums of squares of columns; ``"classes"``: how often each is a target.
        columns: How many columns, or classes.
        targets: How many of the columns, the last, are numbers that are to be told; the others are inputs.
    """

    about: str
    columns: int
    targets: int = 0

    @property
    def question(self) -> Question:
        """What a packet answers."""
        return moments_question(self.columns) if self.about == MOMENTS else counts_question(self.columns - 1)


def statistics_to_json(asked: Sequence[Statistic]) -> list[dict[str, Any]]:
    """Returns what `statistics_from_json` reads."""
    return [asdict(one) for one in asked]


def statistics_from_json(value: Any) -> tuple[Statistic, ...]:
    """Returns what is asked; raises `WireError` or `ValueError`."""
    if not isinstance(value, list) or len(value) > 4:
        raise ValueError("expected a list of at most 4 statistics")
    form = {"about": _about, "columns": whole(1, MOST_COLUMNS), "targets": whole(0, MOST_COLUMNS - 1)}
    asked = tuple(Statistic(**read(one, form)) for one in value)
    if any(one.targets >= one.columns for one in asked):
        raise ValueError("expected fewer targets than columns")
    return asked


def _about(value: Any) -> str:
    if value not in ABOUT:
        raise ValueError(f"expected {' or '.join(ABOUT)}. Is this client older than the server?")
    return str(value)
