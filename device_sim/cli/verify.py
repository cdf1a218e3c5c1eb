"""``fl-mobile verify``: prove a bundle or a whole run again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.layers import layer_tables, read_layers
from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables
from device_sim.cli.quiet import while_loading
from device_sim.cli.verify_engines import verify_engines

if TYPE_CHECKING:
    from device_sim.run_folder import RunFolder


def verify(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="A bundle or a run folder; with --engines EXPERIMENT.toml.")
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="Replay a bundle on this runtime, e.g. litert-js; default all installed ones."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also show the noise quantisation adds in every layer of the artifacts.")
    ] = False,
    engines: Annotated[
        bool, typer.Option("--engines", help="Train a small federation on keras and on the phone's program; compare.")
    ] = False,
    changes: SetOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Prove again that a bundle or run is what it says; ends with exit code 9 if it is not.

    A bundle: every file's SHA-256, builtin operations only, golden frames on every runtime installed here. A run:
    experiment hash, rounds, weights of checkpoint and model.keras, and its bundle. With --engines: every update of an
    experiment trained on both engines from equal weights, and both final accuracies; without a file three rounds of
    the default experiment.

    Examples:
      fl-mobile verify runs/demo
      fl-mobile verify runs/demo/bundle --format json
      fl-mobile verify runs/demo/bundle --runtime litert-js
      fl-mobile verify runs/demo/bundle --layers
      fl-mobile verify --engines
      fl-mobile verify --engines experiment.toml --set train.rounds=2 --set model.name=ds-cnn
    """
    if engines:
        verify_engines(path, changes or [], output)
        return
    if path is None or changes:
        raise typer.BadParameter("give a bundle or a run folder, or --engines with an experiment and --set")
    from device_sim.run_folder import RunFolder
    from export.bundle import MANIFEST
    from fl_mobile.errors import ConfigError, VerifyError

    bundle = path if (path / MANIFEST).exists() else RunFolder(path).bundle
    if bundle == path:
        checks = _bundle_checks(path, runtimes or [])
    elif RunFolder(path).experiment.exists():
        if runtimes:
            raise ConfigError(f"--runtime replays a bundle; {path} is a run. Try {RunFolder(path).bundle}")
        checks = _run_checks(RunFolder(path))
    else:
        raise VerifyError(f"{path} is neither a bundle (no {MANIFEST}) nor a run folder (no experiment.toml)")
    noise = read_layers(bundle) if layers else {}
    if output is Format.JSON:
        print_json({"path": str(path), "verified": True, "checks": checks, **({"layers": noise} if layers else {})})
        return
    print_tables([make_table("", ("part", "proven"), [(c["part"], c["proven"]) for c in checks]), *layer_tables(noise)])
    for recipe, report in noise.items():
        if report["advice"]:
            print(f"{recipe}.tflite: {report['advice']}")
    print(f"{path}: verified")


def _run_checks(folder: RunFolder) -> list[dict[str, str]]:
    from device_sim.proof import verify_run

    with while_loading():
        return [asdict(check) for check in verify_run(folder)]


def _bundle_checks(path: Path, runtimes: list[str]) -> list[dict[str, str]]:
    from export import verify_bundle

    with while_loading():
        proof = verify_bundle(path, runtimes=runtimes)
    files = {"part": "files", "proven": f"SHA-256 of {proof.files} files"}
    replays = [
        {
            "part": f"{r.recipe}.tflite",
            "proven": f"{r.frames} golden frames on {r.runtime}, max Δp {r.max_abs_diff:.2g}",
        }
        for r in proof.replays
    ]
    missing = [{"part": name, "proven": f"not asked: {why}"} for name, why in proof.missing_runtimes.items()]
    return [files, *replays, *missing]
