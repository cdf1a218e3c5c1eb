"""``fl-mobile measure``: any codec on the real updates of a run, on ``.npz`` files, or on a standard source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables, say

if TYPE_CHECKING:
    from fl_mobile.measure.measurement import Measurement
    from fl_mobile.tensors import Spec, Tensors


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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Measure codecs: real packet bytes, error, bias and speed, decoded by the server's path.

    Examples:
      fl-mobile measure gaussian q8 q4+deflate ecsq --size 4096 --repeats 4
      fl-mobile measure runs/demo --plot runs/demo/codecs.svg
    """
    from fl_mobile.codecs import parse_codec
    from fl_mobile.measure.measurement import measure as measure_codec
    from fl_mobile.measure.measurement import pareto_plot

    chosen = {codec.name: codec for codec in map(parse_codec, codecs or _every_row())}
    updates, spec = _updates(target, size)
    found: list[Measurement] = []
    for codec in chosen.values():
        if not quiet:
            say(f"{codec.name}: {len(updates)} updates")
        found.append(measure_codec(codec, updates, spec, repeats=repeats))
    if plot:
        pareto_plot(found, plot, title=target)
    if output is Format.JSON:
        print_json([m.to_json() for m in found])
        return
    columns = ("codec", "bytes", "ratio", "bits/param", "zeros %", "NMSE", "of mean", "unbiased", "MB/s enc", "dec")
    rows = [_row(m) for m in sorted(found, key=lambda m: -m.ratio)]
    print_tables([make_table("", columns, rows, numbers=[c for c in columns if c not in ("codec", "unbiased")])])
    values = sum(t.size for t in spec.values())
    print(f"{len(updates)} updates of {values:,} values; ratio = float32 bytes / packet bytes.")
    print(
        "Speed is of this machine, now. Unbiased is what the n-fold mean showed; (claimed) if only the codec says so."
    )


def _every_row() -> list[str]:
    from fl_mobile.codecs import CODECS, PRESETS, STAGES

    stages = [row.example for name, row in STAGES.items() if name not in ("deflate", "flat")]
    return [*stages, *(row.example for row in CODECS.values()), *PRESETS.values()]


def _updates(target: str, size: int) -> tuple[list[Tensors], Spec]:
    from fl_mobile.errors import DataError
    from fl_mobile.measure.sources import SOURCES, read_update, read_updates, spec_of, synthetic
    from fl_mobile.tensors import TensorSpec

    if target in SOURCES:
        updates = synthetic(target, size, count=2, seed=0)
        return updates, spec_of(updates[0])
    path = Path(target)
    if path.is_file():
        update = read_update(path)
        return [update], spec_of(update)
    folder = path / "updates" if (path / "updates").is_dir() else path
    if not folder.is_dir():
        raise DataError(
            f"{target}: no run folder, folder of .npz updates, .npz file, or source ({', '.join(SOURCES)})."
        )
    spec: Spec | None = None
    if (folder / "spec.json").is_file():
        told = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        spec = {t["path"]: TensorSpec(tuple(t["shape"]), t["trainable"]) for t in told}
    updates = read_updates(folder, spec)
    return updates, spec or spec_of(updates[0])


def _row(found: Measurement) -> tuple[str, ...]:
    unbiased = "yes" if found.unbiased else "(claimed)" if found.claims_unbiased else "no"
    return (
        found.codec,
        f"{found.packet_bytes_median:,.0f}",
        f"{found.ratio:.1f}×",
        f"{found.bits_per_parameter:.3f}",
        f"{100 * found.sparsity:.1f}",
        f"{found.nmse:.4g}",
        f"{found.nmse_of_mean:.4g}",
        unbiased,
        f"{found.encode_mb_s:.0f}",
        f"{found.decode_mb_s:.0f}",
    )
