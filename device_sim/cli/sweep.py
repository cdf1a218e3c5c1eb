"""``fl-mobile sweep``: accuracy against bytes for several codecs, on the same seeds and cohorts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables, say
from device_sim.cli.progress import follow, waiting
from device_sim.cli.quiet import load_tensorflow

if TYPE_CHECKING:
    from device_sim.simulate import Round
    from device_sim.sweep import ArmResult


def sweep(
    arms: Annotated[
        list[str], typer.Argument(metavar="CODEC…", help="Codecs; more keys after ';'. The first is the reference.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Runs and results; started again, it does what is missing.")],
    experiment: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Experiment; without it, the defaults.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 … N-1; each seed has the same cohorts in every arm.")] = 3,
    target_accuracy: Annotated[
        float | None, typer.Option(help="For bytes to target; default: the reference's own final accuracy.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Pareto plot, .png or .svg.")] = None,
    changes: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Compare codecs by accuracy and bytes over seeds, with paired cohorts.

    Examples:
      fl-mobile sweep none q8+deflate ecsq --out runs/sweep --set data.dataset=digits --set model.name=mlp
      fl-mobile sweep none 'ecsq:rounding=rdo,step=2;upload.memory=cafe' --out runs/cafe --seeds 1 --plot runs/cafe.svg
    """
    from device_sim import sweep as sweeping
    from device_sim.experiment_file import parse_experiment, read_experiment

    base = read_experiment(experiment, changes or ()) if experiment else parse_experiment("", changes or ())
    planned = sweeping.experiments_of(base, arms, range(seeds))

    def watch(title: str, rounds: Iterator[Round], limit: int) -> None:
        if not quiet:
            say(title)
        for _ in follow(rounds, limit, 0, quiet=quiet):
            pass

    with waiting("Loading TensorFlow …", quiet=quiet):
        load_tensorflow()
    runs = sweeping.run_sweep(planned, out, watch)
    lines = sweeping.results(runs, target_accuracy)
    content = sweeping.write_results(out / "sweep.json", base, range(seeds), lines)
    if plot:
        sweeping.plot(lines, plot)
    if output is Format.JSON:
        print_json(content)
        return
    columns = (
        "codec",
        "accuracy %",
        "± sd",
        "difference, points",
        "bytes/upload",
        "ratio up",
        "ratio down",
        "MB to target",
    )
    print_tables([make_table("", columns, [_row(line) for line in lines], numbers=columns[1:])])
    print(f"{seeds} seeds, accuracy of the last {sweeping.FINAL_ROUNDS} rounds; runs and sweep.json in {out}")


def _row(line: ArmResult) -> tuple[str, ...]:
    reached = [b for b in line.bytes_to_target if b is not None]
    to_target = f"{sum(reached) / len(reached) / 1e6:.2f}" if reached else "–"
    if 0 < len(reached) < len(line.bytes_to_target):
        to_target += f" ({len(reached)} of {len(line.bytes_to_target)} seeds)"
    return (
        line.arm,
        f"{100 * line.accuracy:.2f}",
        f"{100 * line.accuracy_sd:.2f}",
        f"{line.difference:+.2f} ± {line.difference_sd:.2f}",
        f"{line.upload_bytes:,.0f}",
        f"{line.upload_ratio:.1f}×",
        f"{line.download_ratio:.1f}×",
        to_target,
    )
