"""What is really drawn: shapes of the SVG, mapped back through the axes, are the numbers of the chart."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from device_sim.report import devices, series
from device_sim.report.charts import Chart, GanttChart, Histogram, LineChart, StackChart
from device_sim.report.draw import DRAWN
from device_sim.report.runs import Run, read_runs
from device_sim.report.svg import svg_of
from device_sim.report.theme import PLACEHOLDERS, ROLES
from tests.device_sim.report.made_runs import made_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return read_runs([made_run(root / "a"), made_run(root / "b", seed=1, rounds=70)])


def charts(runs: list[Run]) -> list[Chart]:
    made = [
        *(of(runs) for of in (series.accuracy_by_round, series.accuracy_by_time, series.accuracy_by_bytes)),
        *(of(runs) for of in (series.accuracy_difference, series.ratios, series.energy)),
        *(of(run, runs) for of in (devices.lost, devices.skipped) for run in runs),
        devices.timeline(runs[0].timelines[0]),
        devices.device_accuracy(runs[0], runs),
    ]
    return [chart for chart in made if isinstance(chart, Chart)]


def test_the_charts_above_cover_every_kind(runs: list[Run]) -> None:
    assert {type(chart) for chart in charts(runs)} == set(DRAWN)
    assert len(charts(runs)) == 12


def part(svg: Element, name: str) -> Element:
    return next(e for e in svg.iter() if e.get("id") == f"p-{name}")


def corners(element: Element) -> np.ndarray:
    """Returns float64[n, 2], the points of the only path below an element."""
    path = next(e for e in element.iter("path") if e.get("d"))
    return np.array(re.findall(r"[ML] (-?[\d.e-]+) (-?[\d.e-]+)", path.get("d", "")), float)


def assert_affine(drawn: np.ndarray, meant: np.ndarray) -> None:
    """One scale and one shift map all of ``meant`` to ``drawn``: an axis, whatever its limits are."""
    scale, shift = np.polyfit(meant, drawn, 1)
    assert abs(scale) > 0
    np.testing.assert_allclose(scale * meant + shift, drawn, atol=2e-3)


def test_lines_pass_through_their_points(runs: list[Run]) -> None:
    for chart in charts(runs):
        if isinstance(chart, LineChart):
            svg = svg_of(chart, "p")
            drawn = np.concatenate([corners(part(svg, f"line-{n}")) for n in range(len(chart.lines))])
            x = np.concatenate([line.x for line in chart.lines])
            assert_affine(drawn[:, 0], np.log(x) if chart.log_x else x)
            assert_affine(drawn[:, 1], np.concatenate([line.y for line in chart.lines]))


def boxes(svg: Element, names: list[str]) -> np.ndarray:
    """Returns float64[n, 4], left, right, top and bottom of rectangles."""
    found = [corners(part(svg, name)) for name in names]
    return np.array([(c[:, 0].min(), c[:, 0].max(), c[:, 1].min(), c[:, 1].max()) for c in found])


def test_stacked_bars_are_as_high_as_their_counts(runs: list[Run]) -> None:
    for chart in charts(runs):
        if isinstance(chart, StackChart):
            drawn = boxes(svg_of(chart, "p"), [f"bar-{n}-{a}" for n in range(len(chart.layers)) for a in _at(chart)])
            heights = np.array([layer.heights for layer in chart.layers])
            base = np.cumsum(heights, axis=0) - heights
            assert_affine(drawn[:, 2:].ravel(), np.stack([base + heights, base], axis=-1).ravel().astype(float))
            middles = np.tile([(low + high) / 2 for low, high in chart.spans], len(heights))
            assert_affine(drawn[:, :2].mean(axis=1), middles)


def _at(chart: StackChart) -> range:
    return range(len(chart.spans))


def test_a_timeline_s_bars_marks_and_end_share_one_axis(runs: list[Run]) -> None:
    for chart in charts(runs):
        if isinstance(chart, GanttChart):
            svg = svg_of(chart, "p")
            spans = [(n, span) for n, row in enumerate(chart.rows) for span in row.spans]
            drawn = boxes(svg, [f"span-{n}-{span.phase}" for n, span in spans])
            ends = np.array([(span.start, span.end) for _, span in spans])
            end = corners(part(svg, "end"))[0, 0]
            assert_affine(np.append(drawn[:, :2].ravel(), end), np.append(ends.ravel(), chart.end))
            marks = [next(part(svg, f"outcome-{n}").iter("use")) for n in range(len(chart.rows))]
            assert_affine(
                np.array([float(mark.get("x", "")) for mark in marks] + [end]),
                np.array([row.at for row in chart.rows] + [chart.end]),
            )
            assert_affine(drawn[:, 2:].mean(axis=1), np.array([n for n, _ in spans], float))


def test_a_histogram_s_bars_are_as_high_as_their_counts(runs: list[Run]) -> None:
    for chart in charts(runs):
        if isinstance(chart, Histogram):
            names = [f"bin-{n}-{at}" for n, bars in enumerate(chart.bars) for at in range(len(bars.counts))]
            drawn = boxes(svg_of(chart, "p"), names)
            counts = np.concatenate([bars.counts for bars in chart.bars])
            assert_affine(drawn[:, 2], counts.astype(float))
            assert_affine(drawn[:, 0], np.tile(chart.edges[:-1], len(chart.bars)))


def test_drawings_are_named_scalable_and_leave_colours_and_fonts_to_the_page(runs: list[Run]) -> None:
    for chart in charts(runs):
        svg = svg_of(chart, "p")
        title, desc = svg[0], svg[1]
        assert (title.tag, title.text, desc.tag, desc.text) == ("title", chart.title, "desc", chart.says)
        assert svg.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
        assert "viewBox" in svg.attrib
        assert not {"width", "height"} & svg.attrib.keys()
        written = " ".join(value for e in svg.iter() for key, value in e.attrib.items() if key != "aria-labelledby")
        assert not re.search(r"#[0-9a-f]{6}\b|rgb\(|font-family|font:|https?:", written)
        assert set(re.findall(r"var\(--([\w-]+)\)", written)) <= ROLES.keys()
        assert {e.tag for e in svg.iter()} <= {"svg", "g", "path", "use", "defs", "clipPath", "rect", "text"} | {
            "title",
            "desc",
        }


def test_parts_tell_a_reader_who_points_at_them(runs: list[Run]) -> None:
    chart = devices.timeline(runs[0].timelines[0])
    assert isinstance(chart, GanttChart)
    svg = svg_of(chart, "p")
    for n, row in enumerate(chart.rows):
        assert part(svg, f"outcome-{n}")[0].text == row.hint


def test_placeholders_are_apart_from_each_other_and_from_the_theme() -> None:
    assert len(set(PLACEHOLDERS.values())) == len(ROLES)
    assert not set(PLACEHOLDERS.values()) & {color for role in ROLES.values() for color in (role.light, role.dark)}


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_curves_stand_out_from_the_page(mode: str) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what carries meaning; 2 where legend and table say it too."""
    color = {name: getattr(role, mode) for name, role in ROLES.items()}
    for under in ("surface", "page"):
        assert contrast(color["ink"], color[under]) > 10
        assert contrast(color["muted"], color[under]) > 4.5
    for name in color:
        if name.startswith("series"):
            assert contrast(color[name], color["surface"]) > (2 if mode == "light" else 3), name


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of WCAG 2.2."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_one_run_with_one_round_can_be_drawn(tmp_path: Path) -> None:
    (run,) = read_runs([made_run(tmp_path / "one", rounds=1, timelines=(0,))])
    for of in (series.accuracy_by_round, series.accuracy_by_time, series.accuracy_by_bytes, series.energy):
        chart = of([run])
        assert isinstance(chart, LineChart)
        assert len(list(part(svg_of(chart, "p"), "line-0").iter("use"))) == 1, "a point, where no line can be seen"
