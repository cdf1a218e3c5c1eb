"""``fl-mobile export MODEL --training``: the program that trains on the phone, its contract and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_sim.cli.output import Format, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import prove_command

if TYPE_CHECKING:
    from export.training.report import ProgramReport


def export_program(
    model: str, out: Path, *, batch_size: int, optimizer: str, sign: Path | None, quiet: bool, output: Format
) -> None:
    """Writes the program, its contract, its report and their manifest into a new folder; prints what a phone needs.

    Args:
        model: A row of the model table, built in its literature setting, or a ``.keras`` file.
        out: The folder.
        batch_size: Rows of every batch.
        optimizer: Row of ``fl_mobile.local.OPTIMIZERS``.
        sign: File of the private key that signs the manifest.
        quiet: No progress on stderr.
        output: Of stdout.

    Raises:
        ExportError: A layer that cannot train with builtin ops, or a folder that exists.
        ConfigError: No such model, or no such key.
    """
    from export.bundle.folder import refuse_existing
    from export.bundle.signing import read_signing_key
    from export.training.program import build_training_program, example_shape
    from export.training.shipped import ship_program
    from fl_mobile.models.heads import head_of

    sign_with = None if sign is None else read_signing_key(sign)  # before anything slow: a wrong key is told at once
    refuse_existing(out)
    if not quiet:
        say(f"{model}: tracing, differentiating and converting")
    with while_loading():
        keras_model, dtype = _built(model)
        shape = (2, *example_shape(keras_model))
        from_logits = head_of(keras_model, _probe(shape, dtype)) == "logits"
        program = build_training_program(
            *(keras_model,),
            batch_size=batch_size,
            optimizer=optimizer,
            from_logits=from_logits,
            input_dtype=dtype,
        )
    report = ship_program(out, program, sign_with=sign_with)
    if output is Format.JSON:
        print_json({"folder": str(out), **report.to_json()})
        return
    title = f"{model}, batch {batch_size}, {optimizer}; times are of this host, not a phone"
    print_tables([make_table(title, ("what", "value"), _rows(report))])
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


def _built(model: str) -> tuple[Any, str]:
    """Returns the model and the dtype of its examples."""
    from device_sim.run.keras_file import read_model
    from fl_mobile.errors import ConfigError, nearest
    from fl_mobile.models import MODELS, build_model

    if model.endswith(".keras"):
        return read_model(Path(model)), "float32"
    if model not in MODELS:
        raise ConfigError(f"unknown model '{model}'.{nearest(model, MODELS)} Or give a .keras file.")
    row = MODELS[model]
    built = build_model(
        *(model,), input_shape=row.input_shape, num_classes=row.num_classes, input_scale=1 / 255, seed=0, weights="none"
    )
    return built, row.input_dtype


def _probe(shape: tuple[int, ...], dtype: str) -> Any:
    import numpy as np

    return np.ones(shape, dtype)
