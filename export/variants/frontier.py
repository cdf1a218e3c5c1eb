"""What a search over recipes saw: bytes of every candidate against how far it is from Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.convert.recipes import AUTO
from export.variants.outcome import Unmade
from export.verify.parity import Parity
from fl_mobile.measurements.front import pareto_front

_BAR = 24  # characters of the longest bar


@dataclass(frozen=True)
class Candidate:
    """One artifact that was tried.

    Attributes:
        conversion: The plain recipe whose converter settings and gates hold.
        kept_float: Layers that compute in float32, most noise first.
        kept_int16: Layers that compute on 16-bit activations with their 8-bit weights.
        bytes: Length of the file.
        accuracy: Share it gets right; None without labels.
        accuracy_diff: The same less Keras'.
        agreement: Share of frames with Keras' first class; None without labels.
        max_abs_diff: Largest difference from Keras.
        mean_abs_diff: Mean difference.
        failures: What exceeded the gates of ``conversion``; empty when it passed.
    """

    conversion: str
    kept_float: tuple[str, ...]
    kept_int16: tuple[str, ...]
    bytes: int
    accuracy: float | None
    accuracy_diff: float | None
    agreement: float | None
    max_abs_diff: float
    mean_abs_diff: float
    failures: tuple[str, ...]

    @classmethod
    def of(cls, conversion: str, parity: Parity, size: int, kept: tuple[Sequence[str], Sequence[str]]) -> Candidate:
        """Returns the record of an artifact of ``size`` bytes whose layers ``kept`` are in float and in int16."""
        return cls(
            conversion=conversion,
            kept_float=tuple(kept[0]),
            kept_int16=tuple(kept[1]),
            bytes=size,
            accuracy=parity.accuracy,
            accuracy_diff=parity.accuracy_diff,
            agreement=parity.argmax_agreement,
            max_abs_diff=parity.max_abs_diff,
            mean_abs_diff=parity.mean_abs_diff,
            failures=parity.failures,
        )

    @property
    def name(self) -> str:
        """What it is, e.g. ``"int8, in float32: logits"``."""
        return made_as(self.conversion, self.kept_float, self.kept_int16)

    @property
    def passed(self) -> bool:
        """Whether it is the Keras model."""
        return not self.failures


@dataclass(frozen=True)
class Frontier:
    """Everything a search tried.

    Attributes:
        candidates: In the order they were tried.
        left_out: Recipes and mixes that gave no candidate, with the reason.
    """

    candidates: tuple[Candidate, ...]
    left_out: tuple[Unmade, ...]

    @property
    def front(self) -> tuple[Candidate, ...]:
        """Candidates that no other beats: fewer bytes, more agreement with Keras, less difference."""

        def costs(one: Candidate) -> tuple[float, float, float]:
            return one.bytes, 0.0 if one.agreement is None else 1 - one.agreement, one.mean_abs_diff

        return tuple(pareto_front(self.candidates, costs))

    def to_json(self, chosen: str) -> dict[str, Any]:
        """Returns the search in JSON types; ``chosen`` is the candidate that was written."""
        front = {one.name for one in self.front}
        rows = [
            {"name": one.name, **asdict(one), "passed": one.passed, "on_front": one.name in front}
            for one in self.candidates
        ]
        return {
            "recipe": AUTO.name,
            "chosen": chosen,
            "candidates": rows,
            "left_out": [each.to_json() for each in self.left_out],
        }

    def lines(self, chosen: str) -> list[str]:
        """Returns the Markdown section of ``report.md``: the plot is the column of bars."""
        front, most = {one.name for one in self.front}, max((one.bytes for one in self.candidates), default=1)
        rows = [
            f"| {one.name}{' **written**' if one.name == chosen else ''} | {one.bytes:,}"
            f" | `{'█' * max(1, round(_BAR * one.bytes / most))}` | {_told(one.accuracy)} | {_told(one.agreement)}"
            f" | {one.mean_abs_diff:.2g} | {'yes' if one.name in front else ''}"
            f" | {'; '.join(one.failures) or 'passed'} |"
            for one in sorted(self.candidates, key=lambda one: one.bytes)
        ]
        return [
            "",
            f"## What `{AUTO.name}` tried",
            "",
            "Written is the smallest file that passed the gates of its conversion. On the front: no other candidate has"
            " fewer bytes, agrees with Keras more often and differs less.",
            "",
            "| candidate | bytes | | accuracy | same class | mean Δp | front | outcome |",
            "|---|--:|---|--:|--:|--:|---|---|",
            *rows,
            *(f"- `{each.recipe}` {each.outcome}: {each.reason}" for each in self.left_out),
        ]


def made_as(conversion: str, kept_float: Sequence[str], kept_int16: Sequence[str]) -> str:
    """Returns what an artifact is, for people.

    >>> made_as("int8", (), ("conv", "logits"))
    'int8, in int16: conv logits'
    """
    float_part = f", in float32: {' '.join(kept_float)}" if kept_float else ""
    int16_part = f", in int16: {' '.join(kept_int16)}" if kept_int16 else ""
    return f"{conversion}{float_part}{int16_part}"


def _told(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
