"""The page: sections in reading order, each made from all runs, in one HTML file that asks nobody for anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element

from device_sim.datasets import DATASETS
from device_sim.experiment.experiment import experiment_hash
from device_sim.experiment.toml import to_toml
from device_sim.report import devices, series
from device_sim.report.charts import Chart, GanttChart, Histogram, LineChart, Note, StackChart
from device_sim.report.compare import (
    FINAL_ROUNDS,
    Reached,
    key_differences,
    paired,
    points_of,
    target_accuracy,
    unpaired_keys,
)
from device_sim.report.elements import document, table, tag
from device_sim.report.runs import Run, Timeline
from device_sim.report.svg import svg_of
from device_sim.report.theme import MAX_RUNS, SERIES, variables
from device_sim.report.units import BYTES, JOULES, SECONDS, number, told
from device_sim.run.log import scores_of
from fl_mobile.errors import ConfigError

MAX_TIMELINES = 3
"""So many rounds of a run are drawn, of those whose timeline was kept."""

# Nothing may be fetched and nothing may run, even if a text of a run had got through as markup.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(runs: Sequence[Run]) -> str:
    """Returns the report of these runs as one HTML document. Same runs, same text.

    Raises:
        ConfigError: More runs than can be told apart, or matplotlib is not installed.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ConfigError(f"a report compares 1 to {MAX_RUNS} runs, got {len(runs)}; more cannot be told apart")
    title = " · ".join(run.label for run in runs)
    style = variables() + files("device_sim.report").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", at={"charset": "utf-8"}),
        tag("meta", at={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", at={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", f"{title} – fl-mobile report"),
        tag("style", style),
    )
    main = tag("main", tag("header", tag("p", "fl-mobile report"), tag("h1", title)))
    for name, parts in SECTIONS.items():
        content = parts(runs)
        if content:
            main.append(tag("section", tag("h2", name), *content))
    return document(tag("html", head, tag("body", main), at={"lang": "en"}))


def _overview(runs: Sequence[Run]) -> list[Element]:
    called = {DATASETS[run.experiment.data.dataset].accuracy_name for run in runs}
    accuracy = called.pop() if len(called) == 1 else "accuracy"
    columns = (
        *("run", accuracy, "best", "rounds", "up", "down", "upload ratio"),
        *("in the average", "simulated time", "energy"),
    )
    return [table(columns, [[_named(i, run, runs), *_outcome(run)] for i, run in enumerate(runs)]), *_warnings(runs)]


def _warnings(runs: Sequence[Run]) -> list[Element]:
    """Returns what went wrong with learning, run by run."""
    said = [(i, run, line) for i, run in enumerate(runs) if run.closing for line in run.closing.warnings]
    items: list[Element] = []
    for i, run, line in said:
        whose: list[Element | str] = [_named(i, run, runs), ": "] if len(runs) > 1 else []
        items.append(tag("li", *whose, line))
    if not items:
        return []
    return [tag("h3", "What went wrong"), tag("ul", *items)]


def _outcome(run: Run) -> list[str]:
    scores = scores_of(run.rounds)
    best = max(scores, key=lambda score: score.accuracy)
    up, down = sum(r.upload_bytes for r in run.rounds), sum(r.download_bytes for r in run.rounds)
    accepted, asked = sum(r.accepted for r in run.rounds), sum(r.cohort for r in run.rounds)
    state = run.closing.stop_reason if run.closing else "unfinished"
    return [
        f"{scores[-1].accuracy:.2%}",
        f"{best.accuracy:.2%} in round {best.round_num + 1}",
        f"{len(run.rounds)} ({state})",
        told(up, BYTES),
        told(down, BYTES),
        _share(series.upload_ratio(run.rounds)),
        f"{accepted:,} of {asked:,} asked",
        told(run.rounds[-1].sim_seconds or None, SECONDS),
        told(sum(r.joules for r in run.rounds) or None, JOULES),
    ]


def _comparison(runs: Sequence[Run]) -> list[Element]:
    if len(runs) == 1:
        return []
    different = key_differences(runs)
    names = [_named(i, run, runs) for i, run in enumerate(runs)]
    out = [tag("h3", "Keys that differ")]
    if different:
        out.append(table(("key", *(run.label for run in runs)), [(d.key, *d.values) for d in different], numbers=False))
    else:
        out.append(tag("p", "None: these are runs of the same experiment."))
    target = target_accuracy(runs[0])
    columns = (
        *("run", "accuracy, points", "± over rounds", "bytes", "time", "energy"),
        *("rounds to target", "bytes to target", "time to target", "energy to target"),
    )
    rows: list[list[Element | str]] = []
    for name, line in zip(names, paired(runs), strict=True):
        rows.append(
            [
                *(name, *points_of(line)),
                *(_share(line.bytes_share), _share(line.seconds_share), _share(line.joules_share)),
                *_price(line.reached),
            ]
        )
    unpaired = unpaired_keys(different)
    doubt = f" Equal rounds are not the same devices and examples here, because of {', '.join(unpaired)}."
    told_how = (
        f"Against {runs[0].label}, over the rounds both have: mean accuracy difference of the last {FINAL_ROUNDS} of"
        f" them; bytes, time and energy as multiples. The target is {target:.2%}, the final accuracy of"
        f" {runs[0].label} (mean of its last {FINAL_ROUNDS} rounds)."
    )
    return [
        *out,
        tag("h3", "Paired with the first run"),
        table(columns, rows),
        tag("p", told_how + (doubt if unpaired else ""), at={"class": "note"}),
        *_figures([("difference", series.accuracy_difference(runs), [])]),
    ]


def _price(at: Reached | None) -> list[str]:
    if at is None:
        return ["never", "–", "–", "–"]
    return [
        *(str(at.round_num + 1), told(at.total_bytes, BYTES)),
        *(told(at.sim_seconds or None, SECONDS), told(at.joules or None, JOULES)),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{number(value)}×"


def _accuracy(runs: Sequence[Run]) -> list[Element]:
    charts = (series.accuracy_by_round, series.accuracy_by_time, series.accuracy_by_bytes, series.held_out_loss)
    return _figures([(f"all-{n}", chart(runs), []) for n, chart in enumerate(charts)])


def _lost(runs: Sequence[Run]) -> list[Element]:
    return _each_run(runs, "lost", lambda run: [devices.lost(run, runs), devices.skipped(run, runs)])


def _attacks(runs: Sequence[Run]) -> list[Element]:
    """Returns who attacked and what got through, run by run."""
    attacked = [(i, run) for i, run in enumerate(runs) if any(r.malicious for r in run.rounds)]
    if not attacked:
        return []
    rows: list[list[Element | str]] = []
    for i, run in attacked:
        counts: Counter[str] = Counter()
        for done in run.rounds:
            counts.update(done.malicious)
        keys, worked = run.experiment.attack, [r.backdoor for r in run.rounds if r.backdoor is not None]
        rows.append(
            [
                *(_named(i, run, runs), keys.name, f"{keys.share:.0%}", run.experiment.server.aggregation),
                *(f"{counts[name]:,}" for name in ("asked", "accepted", "refused")),
                f"{worked[-1]:.1%}" if worked else "–",
            ]
        )
    columns = ("run", "attack", "of all devices", "rule", "malicious asked", "accepted", "refused", "backdoor works")
    chart = series.backdoor(runs)
    return [*(_figures([("attack", chart, [])]) if chart else []), table(columns, rows)]


def _timelines(runs: Sequence[Run]) -> list[Element]:
    missing = Note("No timeline", "This run kept no timeline of a round; see output.timeline-rounds.")
    return _each_run(runs, "timeline", lambda run: [devices.timeline(t) for t in _spread(run.timelines)] or [missing])


def _spread(timelines: Sequence[Timeline]) -> list[Timeline]:
    """Returns the first and last timeline and those in the middle, `MAX_TIMELINES` at most."""
    count = min(MAX_TIMELINES, len(timelines))
    return [timelines[i * (len(timelines) - 1) // max(1, count - 1)] for i in range(count)]


def _devices(runs: Sequence[Run]) -> list[Element]:
    def charts(run: Run) -> list[Chart | Note]:
        by_round = devices.device_accuracy_by_round(run)
        return [devices.device_accuracy(run, runs), *([by_round] if by_round else [])]

    return _each_run(runs, "devices", charts)


def _privacy(runs: Sequence[Run]) -> list[Element]:
    charts = [chart for chart in (series.epsilon(runs), series.clip_norm(runs)) if chart]
    if not charts:
        return []
    columns = ("run", "ε", "ε by RDP", "ε without amplification", "what it is about")
    rows: list[list[Element | str]] = []
    for i, run in enumerate(runs):
        last = run.rounds[-1].privacy
        about = run.closing.privacy if run.closing else "written when the run is finished"
        values = (last.get(name) for name in ("epsilon", "epsilon_rdp", "epsilon_unamplified"))
        rows.append([_named(i, run, runs), *("–" if v is None else f"{v:.4g}" for v in values), about])
    return [*_figures([(f"privacy-{n}", chart, []) for n, chart in enumerate(charts)]), table(columns, rows)]


def _costs(runs: Sequence[Run]) -> list[Element]:
    columns = ("run", "model, float32", "mean upload", "traffic per device", "saved by skipping", "energy per update")
    rows: list[list[Element | str]] = []
    for i, run in enumerate(runs):
        accepted, spent = sum(r.accepted for r in run.rounds), sum(r.joules for r in run.rounds)
        ratio, model = series.upload_ratio(run.rounds), run.closing.fp32_model_bytes if run.closing else None
        saved = sum(r.saved_bytes for r in run.rounds)
        total = series.total_bytes(run.rounds)[-1]
        rows.append(
            [
                _named(i, run, runs),
                told(model, BYTES),
                told(model / ratio if model and ratio else None, BYTES),
                told(total / run.closing.population if run.closing else None, BYTES),
                told(saved, BYTES),
                told(spent / accepted if spent and accepted else None, JOULES),
            ]
        )
    return [*_figures([("ratio", series.ratios(runs), []), ("energy", series.energy(runs), [])]), table(columns, rows)]


def _provenance(runs: Sequence[Run]) -> list[Element]:
    return [part for i, run in enumerate(runs) for part in _made(i, run, runs)]


def _made(number: int, run: Run, runs: Sequence[Run]) -> list[Element]:
    closing = run.closing
    facts: list[tuple[str, Element | str]] = [("folder", _code(str(run.path)))]
    if closing:
        facts += [
            ("command", _code(closing.command)),
            ("experiment SHA-256", _code(closing.experiment_sha256)),
            ("model.keras", closing.kept),
            ("weights SHA-256", _code(closing.weights_sha256)),
            *((f"dataset {name.replace('_', ' ')}", value) for name, value in closing.dataset.items()),
            ("engine", closing.engine),
            ("versions", ", ".join(f"{name} {version}" for name, version in closing.versions.items())),
        ]
    else:
        facts += [
            ("command", "written when the run is finished; continue it with --resume"),
            ("experiment SHA-256", _code(experiment_hash(run.experiment))),
        ]
    return [
        *([tag("h3", _named(number, run, runs))] if len(runs) > 1 else []),
        table(("what", "value"), facts, numbers=False),
        tag("details", tag("summary", "The whole experiment"), tag("pre", to_toml(run.experiment))),
        tag("details", tag("summary", "Every round in numbers"), _round_table(run)),
    ]


def _code(text: str) -> Element:
    return tag("code", text)


def _round_table(run: Run) -> Element:
    columns = (
        *("round", "accuracy", "loss", "local loss", "in the average", "lost", "skipped", "up, bytes", "down, bytes"),
        *("ratio", "time, s", "energy, J", "staleness"),
    )
    rows = [
        [
            *(str(r.round_num + 1), _four(r.accuracy), _four(r.loss)),
            *(_four(r.train_loss), f"{r.accepted:,}"),
            *(_counts(r.dropped), _counts(r.skipped), f"{r.upload_bytes:,}", f"{r.download_bytes:,}"),
            *("–" if r.ratio is None else f"{r.ratio:.2f}", f"{r.sim_seconds:.1f}", f"{r.joules:.1f}"),
            f"{r.staleness:.2f}",
        ]
        for r in run.rounds
    ]
    return table(columns, rows)


def _four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(reasons).items()) if n) or "0"


def _each_run(runs: Sequence[Run], prefix: str, charts: Callable[[Run], Sequence[Chart | Note]]) -> list[Element]:
    return _figures(
        [
            (f"{prefix}-{i}-{n}", chart, [_named(i, run, runs)] if len(runs) > 1 else [])
            for i, run in enumerate(runs)
            for n, chart in enumerate(charts(run))
        ]
    )


def _named(number: int, run: Run, runs: Sequence[Run]) -> Element:
    """Returns the run's name, with its colour where several runs have to be told apart."""
    return tag("span", *([_swatch(number)] if len(runs) > 1 else []), run.label)


def _swatch(color: int) -> Element:
    return tag("i", at={"class": f"swatch s{color % SERIES}" + (" dashed" if color >= SERIES else "")})


def _figures(charts: Sequence[tuple[str, Chart | Note, list[Element]]]) -> list[Element]:
    """Returns the charts side by side; each is given as (prefix of its ids, chart, whose it is)."""
    box = tag("div", at={"class": "figures"})
    for prefix, chart, owner in charts:
        caption = tag("figcaption", tag("b", chart.title), *owner, tag("p", chart.says))
        if isinstance(chart, Note):
            box.append(tag("figure", caption, at={"class": "empty"}))
            continue
        box.append(tag("figure", caption, *_legend(chart), svg_of(chart, prefix)))
    return [box]


def _legend(chart: Chart) -> list[Element]:
    entries: Sequence[tuple[int, str]] = LEGENDS[type(chart)](chart)
    if not entries or (len(entries) == 1 and not isinstance(chart, StackChart)):
        return []
    return [tag("ul", *(tag("li", _swatch(color), label) for color, label in entries), at={"class": "legend"})]


LEGENDS: dict[type, Callable[..., Sequence[tuple[int, str]]]] = {
    LineChart: lambda chart: [(line.color, line.label) for line in chart.lines],
    StackChart: lambda chart: [(layer.color, layer.label) for layer in chart.layers],
    GanttChart: lambda chart: [(phase.color, phase.label) for phase in chart.phases],
    Histogram: lambda chart: [(bars.color, bars.label) for bars in chart.bars],
}
"""Kind of chart → (colour, text) of its legend."""

SECTIONS: dict[str, Callable[[Sequence[Run]], list[Element]]] = {
    "Result": _overview,
    "Accuracy": _accuracy,
    "Comparison": _comparison,
    "Attackers": _attacks,
    "Where devices were lost": _lost,
    "A round's timeline": _timelines,
    "The devices' own accuracy": _devices,
    "Privacy": _privacy,
    "Compression and energy": _costs,
    "How it was made": _provenance,
}
"""Heading → what stands below it; a section without content is left out."""
