"""What can be drawn, as records: all numbers in the units of the axes, nothing about how it looks."""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTED = "accepted"
"""The outcome of a device whose update is in the average."""


@dataclass(frozen=True)
class Line:
    """One run's curve.

    Attributes:
        color: Number of its colour in the theme; the same for a run in every chart.
        x: float[n], rising.
        y: float[n].
    """

    label: str
    color: int
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class LineChart:
    """Curves over a shared x axis."""

    key: str
    title: str
    says: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    zero: bool = False
    """Whether y = 0 is drawn as the line to compare with."""
    log_x: bool = False
    """Whether equal steps to the right are equal factors; every x is above 0 then."""


@dataclass(frozen=True)
class Layer:
    """One reason's share of every stack."""

    label: str
    color: int
    heights: tuple[int, ...]


@dataclass(frozen=True)
class StackChart:
    """Stacked bars; bar ``i`` stands for rounds ``spans[i][0]`` to ``spans[i][1]``, counted from 1, both included."""

    key: str
    title: str
    says: str
    x_label: str
    y_label: str
    spans: tuple[tuple[int, int], ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Phase:
    """Something every device of a round does for a while."""

    label: str
    color: int


@dataclass(frozen=True)
class Span:
    """Part of a device's round: number of the phase, and from when to when on the x axis."""

    phase: int
    start: float
    end: float


@dataclass(frozen=True)
class Row:
    """One device of a round.

    Attributes:
        hint: What a reader who points at the row is told.
        at: Where its outcome became clear, on the x axis.
        outcome: ``accepted``, or why not.
    """

    label: str
    hint: str
    spans: tuple[Span, ...]
    at: float
    outcome: str


@dataclass(frozen=True)
class GanttChart:
    """What the devices of one round did, and when the round ended."""

    key: str
    title: str
    says: str
    x_label: str
    phases: tuple[Phase, ...]
    rows: tuple[Row, ...]
    end: float


@dataclass(frozen=True)
class Bars:
    """Devices per bin."""

    label: str
    color: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts between shared edges.

    Attributes:
        highest: Of all bars in the charts that are to be compared, this one included.
    """

    key: str
    title: str
    says: str
    x_label: str
    y_label: str
    edges: tuple[float, ...]
    bars: tuple[Bars, ...]
    highest: int


@dataclass(frozen=True)
class Note:
    """A sentence where a chart would be empty."""

    title: str
    says: str


Chart = LineChart | StackChart | GanttChart | Histogram
