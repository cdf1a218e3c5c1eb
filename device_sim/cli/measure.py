"""``fl-mobile measure``: any codec on the real updates of a run, on ``.npz`` files, or on a standard source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables, say

if TYPE_CHECKING:
    from rich.table import Table

    from fl_mobile.measurements.kinds import OfKind


def measure(
    target: Annotated[
        str, typer.Argument(metavar="RUN|FILE.npz|FOLDER|SOURCE", help="Or gaussian, laplace, generalised-gaussian.")
    ],
    codecs: Annotated[
        list[str] | None, typer.Argument(metavar="[CODEC…]", help="Without any, every row of `fl-mobile codecs`.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="NMSE against bits, .png or .svg.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Values in one update of a SOURCE.")] = 2**18,
    repeats: Annotated[int, typer.Option(min=2, help="Encodings of the bias test.")] = 16,
    kinds: Annotated[bool, typer.Option("--by-kind", help="Beside it, what each kind of tensor costs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Measure codecs: real packet bytes, error, bias and speed, decoded by the server's path.

    Examples:
      fl-mobile measure gaussian q8 q4+deflate ecsq --size 4096 --repeats 4
      fl-mobile measure runs/demo --plot runs/demo/codecs.svg
      fl-mobile measure runs/demo ecsq --by-kind
    """
    import fl_mobile
    from fl_mobile.measurements.table import measure_kinds

    tell = None if quiet else say
    found = fl_mobile.measure(target, codecs or (), size=size, repeats=repeats, progress=tell)
    if plot:
        found.plot(plot, title=target)
    parts = measure_kinds(target, [row.codec for row in found], size=size) if kinds else []
    if output is Format.JSON:
        of = {row.codec: [part.to_json() for part in parts if part.codec == row.codec] for row in found}
        print_json([{**row.to_json(), **({"kinds": of[row.codec]} if kinds else {})} for row in found])
        return
    columns = fl_mobile.Measurements.COLUMNS
    table = make_table("", columns, found.told(), numbers=[c for c in columns if c not in ("codec", "unbiased")])
    print_tables([table, *([_table_of_kinds(parts)] if kinds else [])])
    first = found[0]
    print(f"{first.updates} updates of {first.parameters:,} values; ratio = float32 bytes / packet bytes.")
    print(
        "Speed is of this machine, now. Unbiased is what the n-fold mean showed; (claimed) if only the codec says so."
    )


def _table_of_kinds(parts: Sequence[OfKind]) -> Table:
    columns = ("codec", "kind", "values", "bytes", "ratio", "bits/param", "zeros %", "rows untouched %")
    rows = [
        (
            part.codec,
            part.kind,
            f"{part.parameters:,}",
            f"{part.packet_bytes:,.0f}",
            f"{part.ratio:.1f}×",
            f"{part.bits_per_parameter:.3f}",
            f"{100 * part.zeros:.1f}",
            f"{100 * part.rows_untouched:.1f}",
        )
        for part in parts
    ]
    return make_table("by kind of tensor, each in a packet of its own", columns, rows, numbers=columns[2:])
