"""``fl-mobile report``: one run, or several beside each other, as one HTML file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables

if TYPE_CHECKING:
    from device_sim.report import Run


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; the others are held to the first.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Default: report.html in the first run's folder.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write what runs did as one HTML file that needs no network; several runs are compared with the first.

    Accuracy against rounds, simulated time and bytes; where devices were lost; a round's timeline; accuracy on the
    devices; compression and energy; what differs between the experiments; the exact command and hashes.

    Examples:
      fl-mobile report runs/demo
      fl-mobile report runs/demo runs/none --out comparison.html
    """
    from device_sim.report import page, read_runs
    from fl_mobile.errors import ConfigError
    from fl_mobile.storage.files import write_atomic

    file = out or runs[0] / "report.html"
    if file.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {file}: a report is an HTML file; give a name that ends in .html")
    found = read_runs(runs)
    write_atomic(file, page(found).encode())
    told = _told(found)
    if output is Format.JSON:
        print_json({"report": str(file), **told})
        return
    columns = ("run", "rounds", "accuracy", "difference, points", "bytes", "rounds to target")
    print_tables([make_table("", columns, [_row(line) for line in told["runs"]], numbers=columns[1:])])
    print(f"Report: {file}")


def _told(runs: list[Run]) -> dict[str, Any]:
    from device_sim.report.compare import key_differences, paired, target_accuracy
    from device_sim.run.log import scores_of

    return {
        "target_accuracy": target_accuracy(runs[0]),
        "different_keys": {d.key: list(d.values) for d in key_differences(runs)},
        "runs": [
            {
                "path": str(run.path),
                **asdict(line),
                "rounds": len(run.rounds),
                "accuracy": scores_of(run.rounds)[-1].accuracy,
            }
            for run, line in zip(runs, paired(runs), strict=True)
        ],
    }


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    share, reached, points = line["bytes_share"], line["reached"], line["accuracy_points"]
    return (
        line["label"],
        str(line["rounds"]),
        f"{line['accuracy']:.2%}",
        "–" if points is None else f"{points:+.2f} ± {line['accuracy_points_sd']:.2f}",
        "–" if share is None else f"{share:.3g}×",
        "never" if reached is None else str(reached["round_num"] + 1),
    )
