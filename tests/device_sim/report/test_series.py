"""Every number that is drawn comes from the run's files: charts against the files read once more, by other code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.engines import Evaluation
from device_sim.experiment.experiment import Experiment
from device_sim.report import devices, series
from device_sim.report.charts import GanttChart, Histogram, LineChart, Note, StackChart
from device_sim.report.runs import Run, Timeline, Trips, read_runs
from device_sim.report.theme import SERIES
from device_sim.run.evaluation import distribution
from tests.device_sim.report.made_runs import made_round, made_run, made_timeline, raw_rounds, write_lines

Raw = list[dict[str, Any]]
UNITS = {
    "milliseconds": 1e-3,
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "bytes": 1,
    "kB": 1e3,
    "MB": 1e6,
    "J": 1,
    "kJ": 1e3,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return read_runs([made_run(root / "a"), made_run(root / "b", seed=1, rounds=9, changes=["upload.codec=none"])])


def unit_of(label: str) -> float:
    return UNITS[label.rpartition(", ")[2]]


def run_of(reasons: list[dict[str, int]]) -> Run:
    rounds = tuple(replace(made_round(n, 0), dropped=dropped) for n, dropped in enumerate(reasons))
    return Run("x", Path("x"), Experiment(), rounds, (), None)


def numbers(raw: Raw) -> list[float]:
    return [r["round_num"] + 1 for r in raw]


def percent(raw: Raw) -> list[float]:
    return [100 * r["accuracy"] for r in raw]


Points = Callable[[Raw, LineChart], tuple[Sequence[float], Sequence[float]]]
CURVES: dict[str, tuple[Callable[[Sequence[Run]], Any], Points]] = {
    "accuracy by round": (series.accuracy_by_round, lambda raw, _: (numbers(raw), percent(raw))),
    "accuracy by time": (
        series.accuracy_by_time,
        lambda raw, c: ([r["sim_seconds"] / unit_of(c.x_label) for r in raw], percent(raw)),
    ),
    "accuracy by bytes": (
        series.accuracy_by_bytes,
        lambda raw, c: (
            np.cumsum([r["upload_bytes"] + r["download_bytes"] for r in raw]) / unit_of(c.x_label),
            percent(raw),
        ),
    ),
    "loss": (series.held_out_loss, lambda raw, _: (numbers(raw), [r["loss"] for r in raw])),
    "ratio": (
        series.ratios,
        lambda raw, _: ([r["round_num"] + 1 for r in raw if r["ratio"]], [r["ratio"] for r in raw if r["ratio"]]),
    ),
    "energy": (series.energy, lambda raw, c: (numbers(raw), [r["joules"] / unit_of(c.y_label) for r in raw])),
}


@pytest.mark.parametrize(("chart_of", "points"), CURVES.values(), ids=CURVES)
def test_curves_are_the_rounds(runs: list[Run], chart_of: Callable[..., Any], points: Points) -> None:
    chart = chart_of(runs)
    assert [line.label for line in chart.lines] == ["a", "b"]
    assert [line.color for line in chart.lines] == [0, 1]
    for line, run in zip(chart.lines, runs, strict=True):
        x, y = points(raw_rounds(run.path), chart)
        assert line.x == pytest.approx(x)
        assert line.y == pytest.approx(y)


def test_the_difference_is_paired_by_round_and_ends_with_the_shorter_run(runs: list[Run]) -> None:
    (line,) = series.accuracy_difference(runs).lines
    a, b = (raw_rounds(run.path) for run in runs)
    assert (line.label, line.color, len(line.x)) == ("b", 1, 9)
    assert line.y == pytest.approx([100 * (y["accuracy"] - x["accuracy"]) for x, y in zip(a, b, strict=False)])


def test_the_ratio_of_a_run_weighs_packets(runs: list[Run]) -> None:
    model_bytes = 1_000
    sent = [r for r in raw_rounds(runs[0].path) if r["ratio"]]
    packets = sum(r["uploads"] * model_bytes / r["ratio"] for r in sent)
    raw = model_bytes * sum(r["uploads"] for r in sent)
    assert series.upload_ratio(runs[0].rounds) == pytest.approx(raw / packets)
    assert series.upload_ratio([replace(r, ratio=None, uploads=0) for r in runs[0].rounds]) is None


def test_traffic_that_differs_by_an_order_of_magnitude_gets_a_logarithmic_axis(runs: list[Run]) -> None:
    dear = replace(runs[1], rounds=tuple(replace(r, upload_bytes=100 * r.upload_bytes) for r in runs[1].rounds))
    silent = replace(dear, rounds=(replace(dear.rounds[0], upload_bytes=0, download_bytes=0), *dear.rounds[1:]))
    assert [series.accuracy_by_bytes([runs[0], run]).log_x for run in (runs[1], dear, silent)] == [False, True, False]


@given(
    st.lists(st.dictionaries(st.sampled_from([f"r{n}" for n in range(12)]), st.integers(0, 9)), min_size=1, max_size=90)
)
def test_stacks_lose_no_device(reasons: list[dict[str, int]]) -> None:
    run = run_of(reasons)
    chart = devices.lost(run, [run])
    total: Counter[str] = Counter()
    for by_reason in reasons:
        total.update(by_reason)
    if not total.total():
        assert isinstance(chart, Note)
        return
    assert isinstance(chart, StackChart)
    assert len(chart.spans) <= devices.MAX_STACKS
    assert [n for low, high in chart.spans for n in range(low, high + 1)] == list(range(1, len(reasons) + 1))
    for at, (low, high) in enumerate(chart.spans):
        assert sum(layer.heights[at] for layer in chart.layers) == sum(
            sum(by_reason.values()) for by_reason in reasons[low - 1 : high]
        )
    assert len(chart.layers) <= devices.MAX_REASONS + 1
    assert len({layer.color for layer in chart.layers}) == len(chart.layers)
    for layer in chart.layers:
        reason, _, count = layer.label.rpartition(": ")
        assert sum(layer.heights) == int(count)
        assert "other reasons" in reason or total[reason] == int(count)


def test_a_reason_has_one_colour_in_all_runs() -> None:
    one, two = run_of([{"late": 1, "lost": 9}]), run_of([{"late": 5}])
    first, second = (devices.lost(run, [one, two]) for run in (one, two))
    assert isinstance(first, StackChart)
    assert isinstance(second, StackChart)
    colors = {layer.label.partition(":")[0]: layer.color for layer in first.layers}
    assert second.layers[0].color == colors["late"] != colors["lost"]


def test_skipped_says_what_was_saved(runs: list[Run]) -> None:
    chart = devices.skipped(runs[0], runs)
    assert isinstance(chart, StackChart)
    raw = raw_rounds(runs[0].path)
    assert f"{sum(r['saved_bytes'] for r in raw) / 1e6:.2f} MB" in chart.says
    assert sum(map(sum, (layer.heights for layer in chart.layers))) == sum(sum(r["skipped"].values()) for r in raw)
    free = replace(runs[0], rounds=tuple(replace(r, saved_bytes=0) for r in runs[0].rounds))
    told = devices.skipped(free, runs)
    assert told.says.startswith("Not asked, or declined.")


def test_a_timeline_is_the_file(runs: list[Run]) -> None:
    lines = [json.loads(line) for line in (runs[0].path / "timeline.jsonl").read_text().splitlines()]
    assert len(lines) == len(runs[0].timelines) == 2
    for line, found in zip(lines, runs[0].timelines, strict=True):
        chart, columns = devices.timeline(found), line["devices"]
        assert isinstance(chart, GanttChart)
        one = UNITS[chart.x_label.split()[0]]
        assert chart.end * one == pytest.approx(line["end"] - line["start"])
        by_device = {row.label.split()[0]: row for row in chart.rows}
        assert len(by_device) == len(columns["device"])
        for i, device in enumerate(columns["device"]):
            row = by_device[str(device)]
            times = [columns[name][i] for name in ("asked", "downloaded", "trained", "uploaded")]
            known = [t for t in times if t is not None]
            drawn = [row.spans[0].start, *(s.end for s in row.spans)] if row.spans else [row.at]
            assert [line["start"] + one * t for t in drawn] == pytest.approx(known)
            assert line["start"] + one * row.at == pytest.approx(known[-1])
            assert row.outcome == columns["outcome"][i]
            assert "4 kB down, 2 kB up, 9.5 J" in row.hint
            assert row.label == f"{device} {columns['profile'][i]} {columns['link'][i]}"
        assert [row.at for row in chart.rows] == sorted(row.at for row in chart.rows)
        for outcome, count in Counter(columns["outcome"]).items():
            assert f"{count} {outcome}" in chart.says


def test_many_devices_are_thinned_out_evenly_and_that_is_said(tmp_path: Path) -> None:
    path = made_run(tmp_path / "big", timelines=())
    write_lines(path / "timeline.jsonl", [made_timeline(0, seed=3, devices=1_000)])
    (found,) = read_runs([path])[0].timelines
    chart = devices.timeline(found)
    assert isinstance(chart, GanttChart)
    assert len(chart.rows) == devices.MAX_ROWS
    assert "40 of 1,000 devices" in chart.says


def test_a_round_without_devices_is_a_sentence() -> None:
    assert isinstance(devices.timeline(Timeline(0, 0.0, 1.0, Trips(*((),) * 12))), Note)


def test_accuracy_on_devices_is_the_summary(runs: list[Run]) -> None:
    told = json.loads((runs[0].path / "summary.json").read_text())["federated_evaluation"]
    chart = devices.device_accuracy(runs[0], runs)
    assert isinstance(chart, Histogram)
    assert chart.edges == pytest.approx([100 * e for e in told["histogram"]["edges"]])
    before, after = chart.bars
    assert list(before.counts) == told["histogram"]["counts"]
    assert list(after.counts) == told["personalised"]["histogram"]["counts"]
    for value in (told["accuracy"]["p50"], told["personalised"]["accuracy"]["worst_5_percent"]):
        assert f"{value:.1%}" in chart.says


def test_accuracies_on_devices_are_drawn_to_one_scale(runs: list[Run]) -> None:
    bare = replace(runs[0], closing=None)
    charts = [devices.device_accuracy(run, [bare, *runs]) for run in runs]
    counts = [max(bars.counts) for chart in charts if isinstance(chart, Histogram) for bars in chart.bars]
    assert len(counts) == 2 * len(runs)
    assert [chart.highest for chart in charts if isinstance(chart, Histogram)] == [max(counts)] * len(runs)


def test_accuracy_on_devices_is_drawn_for_the_rounds_that_were_evaluated(runs: list[Run]) -> None:
    accuracies = np.linspace(0, 1, 40) ** 2
    quantiles = distribution([Evaluation(float(a), 1.0, 10) for a in accuracies]).accuracy
    rounds = tuple(replace(r, device_accuracy=quantiles if r.round_num % 3 == 2 else {}) for r in runs[0].rounds)
    chart = devices.device_accuracy_by_round(replace(runs[0], rounds=rounds))
    assert chart is not None
    assert {line.x for line in chart.lines} == {tuple(float(n) for n in range(3, len(rounds) + 1, 3))}
    expected = [*np.percentile(accuracies, (90, 50, 10)), accuracies[:2].mean()]
    for line, share in zip(chart.lines, expected, strict=True):
        assert line.y == pytest.approx([100 * share] * len(line.x))
    assert devices.device_accuracy_by_round(runs[0]) is None, "no round of it was evaluated"


def test_what_a_run_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    (bare,) = read_runs([made_run(tmp_path / "bare", timelines=(), evaluated=False, timed=False)])
    for chart_of in (series.accuracy_by_time, series.energy):
        assert isinstance(chart_of([bare]), Note)
    assert isinstance(devices.skipped(bare, [bare]), Note)
    assert isinstance(devices.device_accuracy(bare, [bare]), Note)
    never = replace(bare, rounds=tuple(replace(r, ratio=None) for r in bare.rounds))
    assert isinstance(series.ratios([never]), Note)


def test_a_run_without_a_clock_beside_one_with_it_is_named(tmp_path: Path) -> None:
    runs = read_runs([made_run(tmp_path / "old", timed=False), made_run(tmp_path / "new")])
    chart = series.accuracy_by_time(runs)
    assert isinstance(chart, LineChart)
    assert [(line.label, line.color) for line in chart.lines] == [("new", 1)]
    assert "Without simulated time: old." in chart.says


def test_parts_and_the_first_runs_differ_in_colour() -> None:
    run = run_of([{"late": 1, "lost": 2, "offline": 3}])
    chart = devices.lost(run, [run])
    assert isinstance(chart, StackChart)
    assert not {layer.color % SERIES for layer in chart.layers} & {0, 1}
