"""What the coordinator asks every device of its examples before round 1, as JSON: sums, never examples."""

from __future__ import annotations

import re
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
_PART = re.compile(r"[xy]\.[^:]{1,200}:[1-9]\d{0,5}")


@dataclass(frozen=True)
class Statistic:
    """One question.

    Attributes:
        about: ``"moments"``: number, sums and sums of squares of columns; ``"classes"``: how often each is a target.
        columns: How many columns, or classes.
        targets: How many of the columns, the last, are numbers that are to be told; the others are inputs.
        parts: Of several inputs or heads, whose the other columns are, in order: ``x.vitals:3``, ``y.mood:2``.
    """

    about: str
    columns: int
    targets: int = 0
    parts: tuple[str, ...] = ()

    @property
    def arrays(self) -> tuple[tuple[str, int], ...]:
        """The arrays of a client that are summed up, and how many columns or classes each has."""
        lone = "y" if self.about == CLASSES else "x", self.columns - self.targets
        named = [part.rpartition(":") for part in self.parts]
        return tuple((name, int(size)) for name, _, size in named) or (lone,)

    @property
    def question(self) -> Question:
        """What a packet answers."""
        return moments_question(self.columns) if self.about == MOMENTS else counts_question(self.columns - 1)


def statistics_to_json(asked: Sequence[Statistic]) -> list[dict[str, Any]]:
    """Returns what `statistics_from_json` reads."""
    return [{**asdict(one), "parts": list(one.parts)} for one in asked]


def statistics_from_json(value: Any) -> tuple[Statistic, ...]:
    """Returns what is asked; raises `WireError` or `ValueError`."""
    if not isinstance(value, list) or len(value) > 4:
        raise ValueError("expected a list of at most 4 statistics")
    columns, targets = whole(1, MOST_COLUMNS), whole(0, MOST_COLUMNS - 1)
    form = {"about": _about, "columns": columns, "targets": targets, "parts": _parts}
    asked = tuple(Statistic(**read(one, form)) for one in value)
    for one in asked:
        if one.targets >= one.columns or sum(size for _, size in one.arrays) + one.targets != one.columns:
            raise ValueError("expected as many columns as targets and parts have")
    return asked


def _parts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(part, str) and _PART.fullmatch(part) for part in value):
        raise ValueError("expected a list of x.name:columns or y.name:classes")
    return tuple(value)


def _about(value: Any) -> str:
    if value not in ABOUT:
        raise ValueError(f"expected {' or '.join(ABOUT)}. Is this client older than the server?")
    return str(value)
