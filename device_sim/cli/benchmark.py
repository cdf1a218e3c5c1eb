"""``fl-mobile benchmark``: latency, memory and size of every artifact of a bundle, here and as a phone told it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables, say, size
from device_sim.cli.trust import PublicKeyOption, RequireSignatureOption, read_trust

if TYPE_CHECKING:
    from rich.table import Table

    from export.benchmark import HostBenchmark, PhoneRun


def benchmark(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")],
    recipes: Annotated[
        list[str] | None, typer.Option("--recipe", help="Only this artifact; may be repeated. Default: all.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, max=64, help="CPU threads; repeatable. Default: 1 and 2.")
    ] = None,
    runs: Annotated[int, typer.Option(min=10, max=1_000_000, help="Warm runs for each figure.")] = 300,
    runtime: Annotated[str, typer.Option(help="Runtime that is timed.")] = "litert",
    read: Annotated[
        list[Path] | None,
        typer.Option("--read", metavar="RESULT", help="Show a phone's result instead of measuring; repeatable."),
    ] = None,
    public_key: PublicKeyOption = None,
    require_signature: RequireSignatureOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Measure every artifact: start, first and p50/p90/p99 latency, peak memory, sizes, multiply-accumulates.

    Each figure comes from processes of their own, artifacts in turn. The bundle is only read, after its signature and
    every file's SHA-256 were checked. Below the tables stand the adb commands that measure the same artifacts on a
    phone; --read shows what came of them: the log of benchmark_model (TFLite's or LiteRT's) or the JSON of
    benchmark_litert_model.

    Examples:
      fl-mobile benchmark runs/demo/bundle
      fl-mobile benchmark runs/demo/bundle --recipe int8 --threads 1 --format json
      fl-mobile benchmark runs/demo/bundle --read int8-1.txt --read int8-2.txt
      fl-mobile benchmark bundles/release --public-key keys/release.pub.pem --runs 50
    """
    from export.benchmark import adb_commands, host_benchmark, open_for_benchmark, read_phone
    from export.benchmark.host import count_steps

    trust = read_trust(public_key, require_signature)
    artifacts, counts = open_for_benchmark(bundle, recipes or [], trust), list(dict.fromkeys(threads or (1, 2)))
    if read:
        phone = [run for path in read for run in read_phone(path, artifacts)]
        if output is Format.JSON:
            print_json({"bundle": str(bundle), "phone": [asdict(run) for run in phone]})
        else:
            print_tables([_phone_table(phone)])
        return
    with _bar(count_steps(artifacts, counts), quiet=quiet) as progress:
        measured = host_benchmark(artifacts, threads=counts, runs=runs, runtime=runtime, progress=progress)
    commands = adb_commands(artifacts, counts, runs)
    if output is Format.JSON:
        told = {"bundle": str(bundle), "signature_checked": bool(trust.key), **measured.to_json(), "adb": commands}
        print_json(told)
        return
    print_tables([_size_table(measured), _time_table(measured)])
    print(f"{measured.label}: {measured.host}; {measured.runtime}. The model has {measured.parameters:,} parameters.")
    print("Tool: median by LiteRT's benchmark_litert_model, on CompiledModel. Memory: what loading and running adds.")
    print("\nOn a phone:\n" + "\n".join(f"  {line}" for line in commands))


def _size_table(measured: HostBenchmark) -> Table:
    columns = ("artifact", "bytes", "zipped", "weights", "MACs")
    rows = [
        (s.recipe, f"{s.bytes:,}", f"{s.zipped_bytes:,}", f"{s.weights:,}", "–" if s.macs is None else f"{s.macs:,}")
        for s in measured.sizes
    ]
    return make_table("", columns, rows, numbers=columns[1:])


def _time_table(measured: HostBenchmark) -> Table:
    columns = ("artifact", "threads", "init ms", "first ms", "p50 ms", "p90 ms", "p99 ms", "tool ms", "memory")
    rows = [
        (
            *(t.recipe, t.threads, f"{t.init_ms:.2f}", f"{t.first_ms:.3f}"),
            *(f"{ms:.3f}" for ms in (t.p50_ms, t.p90_ms, t.p99_ms)),
            _maybe(t.tool_p50_ms, ".2f"),
            "–" if t.peak_memory_bytes is None else size(t.peak_memory_bytes),
        )
        for t in measured.times
    ]
    return make_table("", columns, rows, numbers=columns[1:])


def _phone_table(phone: list[PhoneRun]) -> Table:
    columns = ("artifact", "on", "threads", "init ms", "first ms", "mean ms", "p50 ms", "p95 ms", "runs", "memory MB")
    rows = [
        (
            *(run.recipe, run.accelerator, _maybe(run.threads, "d"), f"{run.init_ms:.2f}", f"{run.first_ms:.3f}"),
            *(f"{run.avg_ms:.3f}", _maybe(run.p50_ms, ".3f"), _maybe(run.p95_ms, ".3f"), _maybe(run.runs, "d")),
            _maybe(run.peak_memory_mb, ".1f"),
        )
        for run in phone
    ]
    return make_table("", columns, rows, numbers=columns[2:])


def _maybe(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


@contextmanager
def _bar(steps: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yields what is called before each of ``steps``: a bar on a terminal, one line per step in a log."""
    if quiet or not sys.stderr.isatty():
        yield (lambda _: None) if quiet else say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps)

        def step(what: str) -> None:
            bar.update(task, description=what)
            bar.advance(task)

        yield step
