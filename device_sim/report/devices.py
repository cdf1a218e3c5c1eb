"""What became of the devices: lost and skipped by reason, a round's timeline, accuracy on each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from device_sim.report.charts import (
    Bars,
    GanttChart,
    Histogram,
    Layer,
    Line,
    LineChart,
    Note,
    Phase,
    Row,
    Span,
    StackChart,
)
from device_sim.report.runs import Run, Spread, Timeline
from device_sim.report.theme import SERIES
from device_sim.report.units import BYTES, JOULES, SECONDS, number, told, unit_for

MAX_STACKS = 60
"""More rounds than this are added up in groups: a bar has to stay wide enough to be seen."""
MAX_REASONS = 7
"""The rarest reasons beyond these become one."""
MAX_ROWS = 40
"""More devices than this are thinned out, evenly in the order in which they were through."""
PHASES = ("download", "training", "upload")
QUANTILES = {
    "p90": "a tenth reaches",
    "p50": "half reach",
    "p10": "nine tenths reach",
    "worst_5_percent": "mean of the worst 5 %",
}
"""What `federated_evaluation.distribution` calls it → what the page does."""


def lost(run: Run, runs: Sequence[Run]) -> StackChart | Note:
    """Returns devices of ``run`` that were asked but are not in the average, by reason.

    Args:
        runs: All of the report: a reason has the same colour for each of them.
    """
    return _stacked(
        key="lost",
        title="Devices lost",
        says="Asked, but not in the average.",
        otherwise="Every device that was asked is in the average.",
        by_round=[r.dropped for r in run.rounds],
        groups=_groups(r.dropped for each in runs for r in each.rounds),
    )


def skipped(run: Run, runs: Sequence[Run]) -> StackChart | Note:
    """Returns participations of ``run`` that were not asked for or declined, by reason; see `lost`."""
    saved = sum(r.saved_bytes for r in run.rounds)
    spared = f"; {told(saved, BYTES)} were not sent for it" if saved else ""
    return _stacked(
        key="skipped",
        title="Participations skipped",
        says=f"Not asked, or declined{spared}.",
        otherwise="No participation was skipped.",
        by_round=[r.skipped for r in run.rounds],
        groups=_groups(r.skipped for each in runs for r in each.rounds),
    )


def _groups(by_round: Iterable[dict[str, int]]) -> list[tuple[str, list[str]]]:
    """Returns (label, reasons) by falling count; the rarest reasons share the last label."""
    total: Counter[str] = Counter()
    for reasons in by_round:
        total.update(reasons)
    ranked = sorted(+total, key=lambda reason: (-total[reason], reason))
    if len(ranked) <= MAX_REASONS + 1:
        return [(reason, [reason]) for reason in ranked]
    rest = ranked[MAX_REASONS:]
    return [*((reason, [reason]) for reason in ranked[:MAX_REASONS]), (f"{len(rest)} other reasons", rest)]


def _stacked(
    key: str,
    title: str,
    says: str,
    otherwise: str,
    by_round: Sequence[dict[str, int]],
    groups: Sequence[tuple[str, list[str]]],
) -> StackChart | Note:
    total: Counter[str] = Counter()
    for reasons in by_round:
        total.update(reasons)
    if not total.total():
        return Note(title, otherwise)
    width = -(-len(by_round) // MAX_STACKS)
    starts = range(0, len(by_round), width)
    spans = tuple((at + 1, min(at + width, len(by_round))) for at in starts)
    layers = tuple(
        Layer(
            f"{label}: {sum(total[r] for r in members):,}",
            _part_color(number),
            tuple(sum(r.get(m, 0) for r in by_round[low - 1 : high] for m in members) for low, high in spans),
        )
        for number, (label, members) in enumerate(groups)
        if any(total[m] for m in members)
    )
    grouped = f" One bar adds up {width} rounds." if width > 1 else ""
    return StackChart(
        key=key, title=title, says=says + grouped, x_label="round", y_label="devices", spans=spans, layers=layers
    )


def timeline(found: Timeline) -> GanttChart | Note:
    """Returns who downloaded, trained and uploaded when, in one round; times count from its start."""
    trips, title = found.trips, f"Round {found.round_num + 1}"
    count = len(trips.device)
    if not count:
        return Note(title, "No device was asked in this round.")
    one, unit = unit_for([found.end - found.start], SECONDS)
    last = [max(t for t in _times(found, i) if t is not None) for i in range(count)]
    order = sorted(range(count), key=lambda i: (last[i], trips.device[i]))
    chosen = order if count <= MAX_ROWS else [order[n * count // MAX_ROWS] for n in range(MAX_ROWS)]
    rows = tuple(_row(found=found, i=i, last=last[i], one=one, unit=unit) for i in chosen)
    thinned = f" {MAX_ROWS} of {count:,} devices, evenly by when they were through." if count > MAX_ROWS else ""
    outcomes = ", ".join(f"{n} {name}" for name, n in sorted(Counter(trips.outcome).items(), key=lambda p: (-p[1], p)))
    return GanttChart(
        key=f"timeline-{found.round_num}",
        title=title,
        says=f"{outcomes}. It lasted {told(found.end - found.start, SECONDS)}; the dashed line is its end.{thinned}",
        x_label=f"{unit} since the round began",
        phases=tuple(Phase(name, _part_color(number)) for number, name in enumerate(PHASES)),
        rows=rows,
        end=(found.end - found.start) / one,
    )


def _row(found: Timeline, i: int, last: float, one: float, unit: str) -> Row:
    trips, times = found.trips, _times(found, i)
    spans = tuple(
        Span(phase, (begin - found.start) / one, (end - found.start) / one)
        for phase, (begin, end) in enumerate(pairwise(times))
        if begin is not None and end is not None
    )
    lasted = [f"{PHASES[s.phase]} {number(s.end - s.start)} {unit}" for s in spans]
    cost = [
        f"{told(trips.download_bytes[i], BYTES)} down, {told(trips.upload_bytes[i], BYTES)} up",
        told(trips.joules[i], JOULES),
    ]
    return Row(
        label=f"{trips.device[i]} {trips.profile[i]} {trips.link[i]}",
        hint=f"device {trips.device[i]} ({trips.profile[i]}, {trips.link[i]}): {trips.outcome[i]}; "
        + ", ".join([*lasted, *cost]),
        spans=spans,
        at=(last - found.start) / one,
        outcome=trips.outcome[i],
    )


def _times(found: Timeline, i: int) -> tuple[float, float | None, float | None, float | None]:
    trips = found.trips
    return trips.asked[i], trips.downloaded[i], trips.trained[i], trips.uploaded[i]


def device_accuracy(run: Run, runs: Sequence[Run]) -> Histogram | Note:
    """Returns how many devices reach which accuracy on their own examples, before and after personalisation.

    Args:
        runs: All of the report: their bars are drawn to one scale.
    """
    title, evaluation = "Accuracy on the devices", run.closing.evaluation if run.closing else None
    if evaluation is None:
        return Note(title, "This run was not evaluated on the devices.")
    before, after = evaluation.before, evaluation.after
    kinds = [("Global model", before)] + ([(f"After {evaluation.personalisation}", after)] if after else [])
    if after and after.edges != before.edges:
        return Note(title, "The bins before and after personalisation differ, so they cannot be laid over each other.")
    return Histogram(
        key="device-accuracy",
        title=title,
        says=" ".join(f"{name}: {_spread(spread)}." for name, spread in kinds),
        x_label="accuracy on the device's own examples, %",
        y_label="devices",
        edges=tuple(100 * edge for edge in before.edges),
        bars=tuple(Bars(name, _part_color(number), spread.counts) for number, (name, spread) in enumerate(kinds)),
        highest=_highest_bar(runs),
    )


def device_accuracy_by_round(run: Run) -> LineChart | None:
    """Returns how well the global model did on single devices, in the rounds [evaluation] named; None if in none."""
    rounds = [r for r in run.rounds if QUANTILES.keys() <= r.device_accuracy.keys()]
    if not rounds:
        return None
    x = tuple(float(r.round_num + 1) for r in rounds)
    lines = tuple(
        Line(label, _part_color(number), x, tuple(100 * r.device_accuracy[key] for r in rounds))
        for number, (key, label) in enumerate(QUANTILES.items())
    )
    return LineChart(
        key="device-accuracy-rounds",
        title="Accuracy on the devices against rounds",
        says="Of the global model after the round, on each device's own examples.",
        x_label="round",
        y_label="accuracy, %",
        lines=lines,
    )


def _highest_bar(runs: Sequence[Run]) -> int:
    evaluations = [run.closing.evaluation for run in runs if run.closing and run.closing.evaluation]
    return max(max(spread.counts) for e in evaluations for spread in (e.before, e.after) if spread)


def _spread(spread: Spread) -> str:
    return (
        f"half of the devices reach {spread.p50:.1%}, nine tenths {spread.p10:.1%}, one tenth {spread.p90:.1%};"
        f" mean of the worst 5 %: {spread.worst_5_percent:.1%}"
    )


def _part_color(number: int) -> int:
    """Returns the colour of a reason, phase or kind: others than the first runs', which stand for runs everywhere."""
    return (number + 2) % SERIES
