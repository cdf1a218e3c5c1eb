"""``fl-mobile export MODEL --training``: the program that trains on the phone, its contract and its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from device_sim.cli.output import Format, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import prove_command

if TYPE_CHECKING:
    from export.training.report import ProgramReport


def export_program(
    model: str,
    out: Path,
    *,
    dataset: str | None,
    changes: Sequence[str],
    imports: Sequence[str],
    batch_size: int | None,
    sign: Path | None,
    quiet: bool,
    output: Format,
) -> None:
    """Writes the program, its contract, its report and their manifest into a new folder; prints what a phone needs.

    Args:
        model: A run folder, a Keras file, a row of the model table or ``package.module:function``.
        out: The folder.
        dataset: Whose examples it is proven on, besides drawn ones; a run knows its own.
        changes: Keys of the experiment that shape a program, as ``--set`` takes them.
        imports: Modules of the user's own layers, for a Keras file.
        batch_size: Rows of every batch; by default the run's, else 16.
        sign: File of the private key that signs the manifest.
        quiet: No progress on stderr.
        output: Of stdout.

    Raises:
        ExportError: A layer that cannot train with builtin ops, or a folder that exists.
        ConfigError: No such model, no such key, or a batch of any number of rows.
    """
    from device_sim.run.trainable import open_trainable
    from export.bundles.folder import refuse_existing
    from export.bundles.signing import read_signing_key
    from export.training.program import build_training_program
    from export.training.shipped import ship_program
    from fl_mobile.errors import ConfigError

    if batch_size == 0:
        raise ConfigError("--batch-size 0: a program's batch has a fixed number of rows; shorter ones are masked")
    sign_with = None if sign is None else read_signing_key(sign)  # before anything slow: a wrong key is told at once
    refuse_existing(out)
    if not quiet:
        say(f"{model}: tracing, differentiating, converting and comparing with Keras")
    with while_loading():
        source = open_trainable(model, dataset, changes, imports)
        program = build_training_program(source.model, **source.options(batch_size), examples=source.examples)
    report = ship_program(out, program, sign_with=sign_with)
    contract = program.contract
    if output is Format.JSON:
        print_json({"folder": str(out), **report.to_json(), "compared": list(program.proof.compared)})
        return
    built = f"batch {contract.batch_size}, {contract.optimizer}, {contract.loss}"
    title = f"{model}, {built}; times are of this host, not a phone"
    print_tables([make_table(title, ("what", "value"), _rows(report))])
    for line in program.proof.compared:
        print(f"Compared with Keras: {line}")
    print(f"Program:  {out / 'train.tflite'}\nContract: {out / 'train.json'}\nProve it: {prove_command(out, sign)}")


def _rows(report: ProgramReport) -> list[tuple[str, str]]:
    return [
        ("program", f"{report.file_bytes:,} bytes"),
        ("weights", f"{report.weights:,}"),
        ("MFLOPs per example and step", f"{report.mflops_per_example:.1f}"),
        ("variables", f"{report.state_bytes:,} bytes"),
        ("arena, at least", f"{report.arena_bytes:,} bytes"),
        ("operations", ", ".join(f"{name} {count}" for name, count in sorted(report.operations.items()))),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in report.measured.items()),
    ]
