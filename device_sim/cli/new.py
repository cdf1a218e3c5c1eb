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
    output: FormatOption = Format.TEXT,
) -> None:
    """Write DIR/experiment.toml with every key, its default and what it means. Needs no network.

    Example: fl-mobile new my-digits --set data.dataset=digits --set model.name=mlp
    """
    from device_sim.experiment.toml import parse_experiment, to_toml
    from fl_mobile.errors import ConfigError
    from fl_mobile.storage.files import write_atomic

    path = folder / "experiment.toml"
    if path.exists():
        raise ConfigError(f"{path} exists already and is not overwritten. Edit it, or name another folder.")
    experiment = parse_experiment("", changes or ())
    write_atomic(path, to_toml(experiment, comments=True).encode())
    command = shlex.join(["fl-mobile", "simulate", str(path), "--out", str(folder / "run")])
    if output is Format.JSON:
        print_json({"experiment": str(path), "next": command})
    else:
        print(f"Wrote {path}\nNext:  {command}")
