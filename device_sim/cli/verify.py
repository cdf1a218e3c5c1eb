"""``fl-mobile verify``: prove a bundle or a whole run again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.layers import layer_tables, read_layers
from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import PublicKeyOption, RequireSignatureOption, read_trust
from device_sim.cli.verify_engines import verify_engines

if TYPE_CHECKING:
    from device_sim.run.folder import RunFolder
    from export import BundleProof
    from export.bundles.folder import Trust
    from export.training.shipped import ProgramProof


def verify(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="A bundle, program or run folder, or EXPERIMENT.toml."),
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="Replay a bundle on this runtime, e.g. litert-js; default all installed ones."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also show the noise quantisation adds in every layer of the artifacts.")
    ] = False,
    public_key: PublicKeyOption = None,
    require_signature: RequireSignatureOption = False,
    engines: Annotated[
        bool, typer.Option("--engines", help="Train a small federation on keras and on the phone's program; compare.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import and run the code that a run's experiment names.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A training program's Keras model or run, to compare it with once more."),
    ] = None,
    changes: SetOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Prove again that a bundle, program or run is what it says; ends with exit code 9 if it is not.

    A bundle, in this order, up to the first failure: its signature, every file's SHA-256, flatbuffers (builtin
    operations only, labels, weights), golden frames on every runtime installed here. A training program: the same,
    with its contract, and Keras' answers to its cases. A run: experiment hash, rounds, weights of checkpoint and
    model.keras, and its bundle. With --engines: every update of an experiment trained on both engines from equal
    weights, and both final accuracies; without a file three rounds of the default experiment.

    Examples:
      fl-mobile verify runs/demo
      fl-mobile verify runs/demo/bundle --format json
      fl-mobile verify runs/demo/bundle --runtime litert-js
      fl-mobile verify runs/demo/bundle --layers
      fl-mobile verify bundles/release --public-key keys/release.pub.pem
      fl-mobile verify programs/camera --public-key keys/release.pub.pem
      fl-mobile verify programs/demo --model runs/demo
      fl-mobile verify --engines
      fl-mobile verify --engines experiment.toml --set train.rounds=2 --set model.name=ds-cnn
    """
    if engines:
        verify_engines(path, changes or [], output)
        return
    if path is None or changes:
        raise typer.BadParameter("give a bundle or a run folder, or --engines with an experiment and --set")
    trust = read_trust(public_key, require_signature)
    from device_sim.run.folder import RunFolder
    from export.bundles.folder import MANIFEST
    from export.training.shipped import is_program
    from fl_mobile.errors import ConfigError, VerifyError

    bundle = path if (path / MANIFEST).exists() else RunFolder(path).bundle
    if model is not None and not is_program(path):
        raise ConfigError(f"--model is what a training program is compared with; {path} is none")
    if is_program(path):
        if layers:
            raise ConfigError(f"--layers reads what quantisation does; {path} is a training program, which has none")
        checks = _program_checks(path, runtimes or [], trust, model)
    elif bundle == path:
        checks = _bundle_checks(path, runtimes or [], trust)
    elif RunFolder(path).experiment.exists():
        if runtimes:
            raise ConfigError(f"--runtime replays a bundle; {path} is a run. Try {RunFolder(path).bundle}")
        checks = _run_checks(RunFolder(path), trust, trust_code)
    else:
        raise VerifyError(f"{path} is neither a bundle (no {MANIFEST}) nor a run folder (no experiment.toml)")
    noise = read_layers(bundle) if layers else {}
    if output is Format.JSON:
        told = {"path": str(path), "verified": True, "signature_checked": bool(trust.key), "checks": checks}
        print_json({**told, **({"layers": noise} if layers else {})})
        return
    print_tables([make_table("", ("part", "proven"), [(c["part"], c["proven"]) for c in checks]), *layer_tables(noise)])
    for recipe, report in noise.items():
        if report["advice"]:
            print(f"{recipe}.tflite: {report['advice']}")
    print(f"{path}: verified{', signed' if trust.key else '; who made it was not checked (--public-key)'}")


def _run_checks(folder: RunFolder, trust: Trust, trust_code: bool) -> list[dict[str, str]]:
    from device_sim.verify.run import verify_run

    with while_loading():
        return [asdict(check) for check in verify_run(folder, trust, trust_code=trust_code)]


def _program_checks(path: Path, runtimes: list[str], trust: Trust, model: str | None) -> list[dict[str, str]]:
    from export.training.shipped import verify_program

    with while_loading():
        keras_model = None
        if model is not None:
            from device_sim.run.trainable import open_model

            keras_model = open_model(model)
        proof = verify_program(path, runtimes=runtimes, trust=trust, model=keras_model)
    replays = [
        {"part": "train.tflite", "proven": f"{proof.cases} cases as Keras on {runtime}, off by {difference:.2g}"}
        for runtime, difference in proof.differences.items()
    ]
    replays += [{"part": str(model), "proven": line} for line in proof.compared]
    return [*_opened(proof), {"part": "train.json", "proven": f"the contract of {proof.weights:,} weights"}, *replays]


def _opened(proof: BundleProof | ProgramProof) -> list[dict[str, str]]:
    return [
        {"part": "signature", "proven": str(proof.signature)},
        {"part": "files", "proven": f"SHA-256 of {proof.files} files"},
    ]


def _bundle_checks(path: Path, runtimes: list[str], trust: Trust) -> list[dict[str, str]]:
    from export import verify_bundle

    with while_loading():
        proof = verify_bundle(path, runtimes=runtimes, trust=trust)
    replays = [
        {
            "part": f"{r.recipe}.tflite",
            "proven": f"told, not judged: {r.problem}"
            if r.problem
            else f"{r.frames} golden frames on {r.runtime}, max Δp {r.max_abs_diff:.2g}",
        }
        for r in proof.replays
    ]
    missing = [{"part": name, "proven": f"not asked: {why}"} for name, why in proof.missing_runtimes.items()]
    return [*_opened(proof), *replays, *missing]
