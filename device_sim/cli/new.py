"""``fl-mobile new``: a commented experiment file, offline."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, print_json


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for experiment.toml; made if missing.")],
    changes: SetOption = None,
    example: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="demo or camera (the defaults), thousand (smaller uploads), keyboard, activity, segmentation, table.",
        ),
    ] = "demo",
    output: FormatOption = Format.TEXT,
) -> None:
    """Write DIR/experiment.toml with every key, its default and what it means. Needs no network.

    Examples:
      fl-mobile new my-digits --set data.dataset=digits --set model.name=mlp
      fl-mobile new thousand --example thousand
    """
    from device_sim.experiment.examples import EXAMPLES
    from device_sim.experiment.toml import parse_experiment, to_toml
    from fl_mobile.errors import ConfigError, check_known
    from fl_mobile.storage.files import write_atomic

    path = folder / "experiment.toml"
    if path.exists():
        raise ConfigError(f"{path} exists already and is not overwritten. Edit it, or name another folder.")
    check_known("--example", example, EXAMPLES)
    experiment = parse_experiment("", [*EXAMPLES[example].changes, *(changes or ())])
    write_atomic(path, to_toml(experiment, comments=True).encode())
    command = shlex.join(["fl-mobile", "simulate", str(path), "--out", str(folder / "run")])
    if output is Format.JSON:
        print_json({"experiment": str(path), "next": command})
    else:
        print(f"Wrote {path}\nNext:  {command}")
