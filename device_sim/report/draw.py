"""Charts as matplotlib figures. What a figure shows is decided in `series`; here is only how.

Text that comes from a run (labels, reasons, names) does not pass through matplotlib, whose mathematics would read a
``$`` in it: legends are HTML. The one exception, the rows of a timeline, is drawn with that reading switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from device_sim.report.charts import ACCEPTED, Chart, GanttChart, Histogram, LineChart, StackChart
from device_sim.report.theme import DASHES, PLACEHOLDERS, SERIES, series
from fl_mobile.errors import ConfigError

_INCHES = (5.4, 3.1)
_ROW_INCHES = 0.165
_ROOM_FOR_WORDS = 1.14
_MARKED_POINTS = 15
"""Curves with no more points than this show each of them."""
Hints = dict[str, str]
"""Id of a drawn part → what a reader who points at it is told."""


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """Draws in the page's placeholders; ids in the file follow from ``salt`` alone.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("a report draws with matplotlib: pip install 'fl-mobile[demo]'") from None
    ink, muted = PLACEHOLDERS["ink"], PLACEHOLDERS["muted"]
    rules = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "path.simplify": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": PLACEHOLDERS["muted"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": PLACEHOLDERS["grid"],
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "ytick.major.size": 0,
        "xtick.major.size": 3,
    }
    with matplotlib.rc_context(rules):
        yield


def draw(chart: Chart) -> tuple[Any, Hints]:
    """Returns the matplotlib figure of a chart, to be saved inside `styled`, and the hints of its parts."""
    from matplotlib.figure import Figure

    height = _INCHES[1]
    if isinstance(chart, GanttChart):
        height = 0.7 + _ROW_INCHES * max(4, len(chart.rows))
    figure = Figure(figsize=(_INCHES[0], height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, DRAWN[type(chart)](axes, chart)


def _lines(axes: Any, chart: LineChart) -> Hints:
    hints = {}
    if chart.zero:
        axes.axhline(0, color=PLACEHOLDERS["muted"], linewidth=1)
    for number, line in enumerate(chart.lines):
        (drawn,) = axes.plot(
            line.x,
            line.y,
            color=PLACEHOLDERS[series(line.color)],
            linestyle=DASHES[line.color // SERIES % len(DASHES)],
            linewidth=1.8,
            marker="o" if len(line.x) <= _MARKED_POINTS else None,
            markersize=4,
            gid=f"line-{number}",
        )
        drawn.set_solid_capstyle("round")
        hints[f"line-{number}"] = line.label
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, xscale="log" if chart.log_x else "linear")
    _whole_rounds(axes, chart.x_label)
    if chart.log_x:
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    return hints


def _stacks(axes: Any, chart: StackChart) -> Hints:
    hints, base = {}, [0] * len(chart.spans)
    for number, layer in enumerate(chart.layers):
        bars = axes.bar(
            [(low + high) / 2 for low, high in chart.spans],
            layer.heights,
            [0.86 * (high - low + 1) for low, high in chart.spans],
            bottom=base,
            color=PLACEHOLDERS[series(layer.color)],
            edgecolor=PLACEHOLDERS["surface"],
            linewidth=0.4,
        )
        reason = layer.label.rpartition(":")[0]
        for at, (bar, (low, high), height) in enumerate(zip(bars, chart.spans, layer.heights, strict=True)):
            bar.set_gid(f"bar-{number}-{at}")
            rounds = f"round {low}" if low == high else f"rounds {low} to {high}"
            hints[f"bar-{number}-{at}"] = f"{rounds}: {height:,} {reason}"
        base = [b + h for b, h in zip(base, layer.heights, strict=True)]
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    _whole_rounds(axes, chart.x_label)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return hints


def _gantt(axes: Any, chart: GanttChart) -> Hints:
    hints = {}
    for place, row in enumerate(chart.rows):
        for span in row.spans:
            name = f"span-{place}-{span.phase}"
            (bar,) = axes.barh(
                place,
                span.end - span.start,
                0.62,
                span.start,
                color=PLACEHOLDERS[series(chart.phases[span.phase].color)],
            )
            bar.set_gid(name)
            hints[name] = row.hint
        accepted = row.outcome == ACCEPTED
        name = f"outcome-{place}"
        mark = {"color": PLACEHOLDERS["ink"], "marker": "o" if accepted else "x", "markersize": 4, "gid": name}
        axes.plot([row.at], [place], clip_on=False, **mark)
        hints[name] = row.hint
        if not accepted:
            axes.annotate(
                _drawable(row.outcome),
                (row.at, place),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=PLACEHOLDERS["muted"],
                parse_math=False,
            )
    axes.axvline(chart.end, color=PLACEHOLDERS["ink"], linewidth=1.2, linestyle=(0, (4, 3)), gid="end")
    names = [_drawable(row.label) for row in chart.rows]
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    axes.set_ylim(max(4, len(names)) - 0.4, -0.6)
    first, last = (pick(chart.end, 0.0, *(row.at for row in chart.rows)) for pick in (min, max))
    axes.set_xlim(first, first + (last - first or 1) * _ROOM_FOR_WORDS)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=chart.x_label)
    return hints


def _histogram(axes: Any, chart: Histogram) -> Hints:
    hints = {}
    for number, bars in enumerate(chart.bars):
        color = PLACEHOLDERS[series(bars.color)]
        axes.stairs(bars.counts, chart.edges, color=color, linewidth=1.8, gid=f"outline-{number}")
        drawn = axes.bar(
            chart.edges[:-1],
            bars.counts,
            [high - low for low, high in zip(chart.edges, chart.edges[1:], strict=False)],
            align="edge",
            color=color,
            alpha=0.28,
        )
        for at, (bar, count) in enumerate(zip(drawn, bars.counts, strict=True)):
            bar.set_gid(f"bin-{number}-{at}")
            span = f"{chart.edges[at]:g} to {chart.edges[at + 1]:g}"
            hints[f"bin-{number}-{at}"] = f"{bars.label}, {span}: {count:,} devices"
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, ylim=(0, 1.05 * max(1, chart.highest)))
    axes.yaxis.get_major_locator().set_params(integer=True)
    return hints


DRAWN: dict[type, Callable[[Any, Any], Hints]] = {
    LineChart: _lines,
    StackChart: _stacks,
    GanttChart: _gantt,
    Histogram: _histogram,
}
"""Kind of chart → what puts it on axes and returns its hints."""


def _whole_rounds(axes: Any, label: str) -> None:
    if label == "round":
        axes.xaxis.get_major_locator().set_params(integer=True)


def _drawable(text: str) -> str:
    """Returns what the drawing font surely has and a row has room for; the hint says the whole."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain if len(plain) <= 24 else plain[:23] + ">"
