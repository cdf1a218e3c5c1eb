"""``fl-mobile verify --engines``: the phone's program against Keras over a small federation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from device_sim.cli.output import Format, make_table, print_json, print_tables
from device_sim.cli.quiet import while_loading
from device_sim.run.progress import waiting

if TYPE_CHECKING:
    from device_sim.verify.engines import Comparison

SMALL = ("train.rounds=3",)
"""Changes to the default experiment, before the user's own."""


def verify_engines(path: Path | None, changes: Sequence[str], output: Format) -> None:
    """Trains an experiment on both engines, then `show`."""
    from device_sim.experiment.as_compiled import left_open
    from device_sim.experiment.toml import parse_experiment, read_experiment
    from device_sim.federation.federation import settled
    from device_sim.verify.engines import compare_engines

    experiment = read_experiment(path, changes) if path else parse_experiment("", [*SMALL, *changes])
    open_keys = left_open(path.read_text(encoding="utf-8") if path else "", changes)
    with waiting("Training on both engines …", quiet=output is Format.JSON), while_loading():
        found = compare_engines(settled(experiment, open_keys)[0])
    show(found, output)


def show(found: Comparison, output: Format) -> None:
    """Prints how far two engines are apart.

    Raises:
        VerifyError: Further than rounding and chance explain.
    """
    from fl_mobile.errors import VerifyError

    problems = found.problems()
    if output is Format.JSON:
        print_json(found.to_json() | {"verified": not problems})
    else:
        print_tables([make_table("", ("compared", *found.engines, "difference", "allowed"), _rows(found))])
    if problems:
        raise VerifyError("; ".join(problems))
    if output is Format.TEXT:
        print(f"{' and '.join(found.engines)}: the same federation")


def _rows(found: Comparison) -> list[tuple[str, ...]]:
    typical = sorted(found.updates, key=lambda u: u.relative)[len(found.updates) // 2]
    regular = [u for u in found.updates if u.relative <= u.allowed] or [typical]
    worst, largest = max(u.relative for u in regular), max(u.max_abs for u in regular)
    apart = abs(found.accuracy[0] - found.accuracy[1])
    rows = [
        (
            "relative difference of an update",
            "",
            "",
            f"{worst:.2g}, median {typical.relative:.2g}",
            f"{typical.allowed:.2g}",
        ),
        ("largest difference of a weight", "", "", f"{largest:.2g}", ""),
        (
            f"final accuracy, {found.examples} examples",
            *(f"{a:.2%}" for a in found.accuracy),
            *(f"{100 * apart:.2f} pt", f"{100 * found.noise:.2f} pt"),
        ),
        ("final loss", *(f"{v:.6g}" for v in found.loss), f"{abs(found.loss[0] - found.loss[1]):.2g}", ""),
    ]
    if found.corners:
        told = "agree from a start 1e-6 aside: an activation on a corner"
        rows.insert(2, (f"{found.corners} of {len(found.updates)} updates", "", "", told, ""))
    return rows
