"""``fl-mobile export MODEL --training``: the program that trains on the phone, its contract and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_sim.cli.output import Format, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading


def export_program(model: str, out: Path, *, batch_size: int, optimizer: str, quiet: bool, output: Format) -> None:
    """Writes ``train.tflite``, ``train.json`` and ``report.json`` into a new folder and prints what a phone needs.

    Args:
        model: A row of the model table, built in its literature setting, or a ``.keras`` file.

    Raises:
        ExportError: A layer that cannot train with builtin ops, or a folder that exists.
        ConfigError: No such model.
    """
    from export.training.program import build_training_program, example_shape
    from export.training.report import report_on, write_program
    from fl_mobile import keras_bridge
    from fl_mobile.errors import ExportError
    from fl_mobile.files import write_json

    if out.exists():
        raise ExportError(f"{out} exists; choose another --out.")
    if not quiet:
        say(f"{model}: tracing, differentiating and converting")
    with while_loading():
        keras_model, dtype = _built(model)
        shape = (2, *example_shape(keras_model))
        from_logits = not keras_bridge.gives_probabilities(keras_model, _probe(shape, dtype))
        program = build_training_program(
            *(keras_model,),
            batch_size=batch_size,
            optimizer=optimizer,
            from_logits=from_logits,
            input_dtype=dtype,
        )
    write_program(out, program.tflite, program.contract)
    report = report_on(out, program.tflite, program.contract)
    write_json(out / "report.json", report.to_json())
    if output is Format.JSON:
        print_json({"folder": str(out), **report.to_json()})
        return
    rows = [
        ("program", f"{report.file_bytes:,} bytes"),
        ("weights", f"{report.weights:,}"),
        ("MFLOPs per example and step", f"{report.mflops_per_example:.1f}"),
        ("operations", ", ".join(f"{name} {count}" for name, count in sorted(report.operations.items()))),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in report.measured.items()),
    ]
    print_tables(
        [
            make_table(
                f"{model}, batch {batch_size}, {optimizer}; times are of this host, not a phone",
                ("what", "value"),
                rows,
            )
        ]
    )
    print(f"Program:  {out / 'train.tflite'}\nContract: {out / 'train.json'}")


def _built(model: str) -> tuple[Any, str]:
    """Returns the model and the dtype of its examples."""
    from device_sim.keras_file import read_model
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
