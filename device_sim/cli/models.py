"""``fl-mobile models``: what ``model.name`` may say."""

from __future__ import annotations

from dataclasses import asdict

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables


def models(output: FormatOption = Format.TEXT) -> None:
    """List models. Your own is package.module:function in model.name.

    Examples:
      fl-mobile models
      fl-mobile models --format json
    """
    from fl_mobile.models import MODELS

    if output is Format.JSON:
        print_json([{"name": name, **asdict(row)} for name, row in MODELS.items()])
        return
    rows = [
        (name, row.summary, "×".join(map(str, row.input_shape)), row.num_classes, row.reference)
        for name, row in MODELS.items()
    ]
    columns = ("name", "what it is", "input", "classes", "source, parameters")
    print_tables([make_table("", columns, rows, numbers=("classes",))])
