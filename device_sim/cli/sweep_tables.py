"""What ``fl-mobile sweep`` prints: its trials as a table, and what a sweep would cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from device_sim.cli.output import Format, make_table, print_json, print_tables, say, size
from device_sim.cli.sweep_job import Job
from device_sim.run.progress import clock
from device_sim.sweep.plan import short
from device_sim.sweep.results import FINAL_ROUNDS, Scores, TrialResult

SHOWN = 200
"""A grid's dry run lists so many trials as text; ``--format json`` lists them all."""

_NUMBERS = (
    *("accuracy %", "± sd", "difference, points", "bytes/upload", "ratio up", "ratio down", "in all", "to target"),
)


def show(job: Job, content: dict[str, Any], results: Sequence[TrialResult], files: Iterable[Path]) -> None:
    """Prints one row a trial, then why trials failed, then where everything is."""
    keys = list(job.what.get("search", ()))
    columns = ("trial", *_headings(keys)) if keys else ("codec",)
    rows = []
    for result in results:
        if result.scores:
            named = _named(result, keys)
            rows.append((*named, *_figures(result.scores), _mark(result.number, content)))
    print_tables([make_table("", (*columns, *_NUMBERS, ""), rows, numbers=_NUMBERS)])
    if len(kinds := kinds_in(results)) > 1:
        cells = [(result.label, *_of_kinds(result, kinds)) for result in results if result.by_kind]
        print_tables([make_table("bytes of an upload by kind of tensor", ("", *kinds), cells, numbers=kinds)])
    if grid := job.grid(results):
        title = f"accuracy %, {grid.keys[0]} by {grid.keys[1]}"
        print_tables([make_table(title, ("", *grid.columns), grid.told(), numbers=grid.columns)])
    for result in results:
        if result.failure:
            print(f"failed: trial {result.number}, {result.label}: {result.failure}")
    front = " and ".join(job.objectives)
    print(f"{job.seeds} seeds, accuracy of the last {FINAL_ROUNDS} rounds; * is on the front of {front}")
    for file in files:
        print(file)


def kinds_in(results: Sequence[TrialResult]) -> tuple[str, ...]:
    """Returns the kinds of tensors that trials measured, in order."""
    return tuple(dict.fromkeys(str(row["kind"]) for result in results for row in result.by_kind))


def _of_kinds(result: TrialResult, kinds: Sequence[str]) -> list[str]:
    told = {row["kind"]: f"{row['packet_bytes']:,.0f} ({row['ratio']:.1f}×)" for row in result.by_kind}
    return [told.get(kind, "–") for kind in kinds]


def _named(result: TrialResult, keys: Sequence[str]) -> tuple[str, ...]:
    if not keys:
        return (result.label,)
    values = (short(result.params[key]) if key in result.params else "(base)" for key in keys)
    return (str(result.number), *values)


def _headings(keys: Sequence[str]) -> list[str]:
    """Returns the keys without their section where that leaves them different."""
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for name, key in zip(last, keys, strict=True)]


def _mark(number: int, content: dict[str, Any]) -> str:
    return ("*" if number in content["pareto_front"] else "") + (" best" if number == content["best"] else "")


def _figures(scores: Scores) -> tuple[str, ...]:
    reached = [count for count in scores.bytes_to_target if count is not None]
    to_target = size(sum(reached) / len(reached)) if reached else "–"
    if 0 < len(reached) < len(scores.bytes_to_target):
        to_target += f" ({len(reached)} of {len(scores.bytes_to_target)} seeds)"
    return (
        f"{100 * scores.accuracy:.2f}",
        f"{100 * scores.accuracy_sd:.2f}",
        f"{scores.difference:+.2f} ± {scores.difference_sd:.2f}",
        f"{scores.upload_bytes:,.0f}",
        f"{scores.upload_ratio:.1f}×",
        f"{scores.download_ratio:.1f}×",
        size(scores.total_bytes),
        to_target,
    )


def show_cost(cost: dict[str, Any], output: Format) -> None:
    """Prints what a sweep would run."""
    if output is Format.JSON:
        print_json(cost)
        return
    known = cost["known_trials"]
    for number, trial in enumerate(known[:SHOWN]):
        print(f"trial {number}: {trial['label']}" + (f"  (will fail: {trial['failure']})" if trial["failure"] else ""))
    if len(known) > SHOWN:
        say(f"… {len(known) - SHOWN} more; --format json lists all")
    if cost["trials"] > len(known):
        print(f"{cost['trials'] - len(known)} more trials are chosen while it runs, by what the earlier ones gave")
    print(
        f"{cost['trials']} trials × {cost['seeds']} seeds = {cost['runs']} runs, {cost['runs_left']} still to do;"
        f" the base has at most {cost['rounds_per_run']} rounds and {cost['fits_per_run']:,} local trainings a run"
    )
    if cost["seconds_per_run"] is not None:
        each = cost["seconds_per_run"]
        print(f"finished runs took {each:.1f} s each here, so about {clock(each * cost['runs_left'])} is left")
