"""``fl-mobile export``: a Keras model, a run or a named model as a proven TFLite bundle."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import prove_command

if TYPE_CHECKING:
    from device_sim.datasets import Dataset
    from device_sim.experiment.experiment import Experiment, Output
    from export.report.facts import TrainingFacts

_WITH_VALUE = ("--out", "--sign", "--format")


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .keras file, a run folder, or a model's name.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the bundle.")],
    recipes: Annotated[
        list[str] | None, typer.Option("--recipe", help="TFLite variant; may be repeated. Default: the core four.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Whose held-out examples prove the bundle; a run folder knows its own.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names, one a line; default the dataset's.")
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float", metavar="LAYER", help="Keras layer that 8-bit recipes leave in float; repeatable."
        ),
    ] = None,
    tuning_data: Annotated[
        str | None,
        typer.Option(metavar="DATASET|FILE.npz", help="What sparse-, clustered- and qat- recipes train on."),
    ] = None,
    tuning_origin: Annotated[
        str | None, typer.Option(help="Whose those examples are: public, server or devices-agreed.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Private key of `fl-mobile keys new`."),
    ] = None,
    license: Annotated[
        str, typer.Option(help="Of the exported weights, e.g. Apache-2.0; for model card and metadata.")
    ] = "",
    changes: SetOption = None,
    training: Annotated[
        bool, typer.Option("--training", help="Export the program that trains on the phone instead.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="--training: rows of every batch; default the run's, else 16.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="--training: sgd, momentum or adam; default the run's.")] = None,
    loss: Annotated[str | None, typer.Option(help="--training: as train.loss; default the run's.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Export a Keras model to TFLite, each variant compared with Keras before anything is written.

    100 held-out examples calibrate int8, the others prove parity. Tuned recipes train on --tuning-data, from which
    everything held out and everything that devices hold is left out first.

    Examples:
      fl-mobile export runs/demo --out bundles/small --recipe int8
      fl-mobile export runs/demo --out bundles/mixed --recipe int8 --keep-float logits
      fl-mobile export runs/demo/model.keras --out bundles/digits --dataset mnist-5k
      fl-mobile export runs/demo --out bundles/tuned --recipe qat-int8 --tuning-data mine.npz --tuning-origin server
      fl-mobile export runs/demo --out bundles/release --sign keys/release.pem --license Apache-2.0
      fl-mobile export mlp --out bundles/untrained --dataset digits --recipe float32
      fl-mobile export smart-camera-cnn --training --out programs/camera --sign keys/release.pem
      fl-mobile export runs/demo --training --out programs/demo
      fl-mobile export mine.keras --training --out programs/mine --loss mse --optimizer adam --dataset mnist-5k
    """
    from fl_mobile.errors import ConfigError

    if training:
        from device_sim.cli.program import export_program

        shaping = {"--recipe": recipes, "--keep-float": keep_float, "--labels": labels, "--license": license}
        for option, given in {**shaping, "--tuning-data": tuning_data, "--tuning-origin": tuning_origin}.items():
            if given:
                raise ConfigError(f"{option} shapes a bundle, and --training writes a program instead. Leave one out.")
        named = {"train.loss": loss, "train.optimizer": optimizer}
        export_program(
            *(model, out),
            dataset=dataset,
            changes=[*(changes or []), *(f"{key}={value}" for key, value in named.items() if value)],
            batch_size=batch_size,
            sign=sign,
            quiet=quiet,
            output=output,
        )
        return
    for option, said in (("--batch-size", batch_size), ("--optimizer", optimizer), ("--loss", loss)):
        if said is not None:
            raise ConfigError(f"{option} shapes a training program: give --training too, or leave it out")
    from device_sim.cli.tables import artifact_rows
    from device_sim.federation.federation import open_dataset
    from device_sim.run.finish import export_with_held_out, summarise_export
    from device_sim.run.tuning_data import open_tuning_set
    from export import CORE_RECIPES
    from export.bundle.signing import read_signing_key

    sign_with = None if sign is None else read_signing_key(sign)  # before anything slow: a wrong key is told at once
    tell = (lambda _: None) if quiet else say
    experiment = _experiment(model, dataset, changes or [])
    wanted = _output(experiment, recipes or CORE_RECIPES, tuning_data, tuning_origin)
    data = open_dataset(experiment)
    with while_loading():
        keras_model = _model(model, experiment, data)
    report = export_with_held_out(
        *(keras_model, out, data, experiment.seed),
        recipes=wanted.recipes,
        provenance={"model": model, "dataset": data.fingerprint},
        say=tell,
        labels=None if labels is None else labels.read_text(encoding="utf-8").splitlines(),
        keep_float=keep_float or (),
        training=_facts(model, experiment, license),
        sign_with=sign_with,
        tuning=open_tuning_set(
            wanted,
            held_out=data.test,
            on_devices=data.train if _is_run(model) else None,
            seed=experiment.seed,
            say=tell,
        ),
    )
    summary = summarise_export(report)
    if output is Format.JSON:
        print_json({"bundle": str(out), **summary})
        return
    print_tables([make_table("", ("artifact", "size", "parity"), artifact_rows(summary))])
    for artifact in summary["artifacts"]:
        if artifact["advice"]:
            print(f"{artifact['file']}: {artifact['advice']}")
    print(f"Bundle:   {out}\nProve it: {prove_command(out, sign)}")


def _output(experiment: Experiment, recipes: Sequence[str], data: str | None, origin: str | None) -> Output:
    """Returns [output] of the experiment with what the command line says instead."""
    given = {"tuning_data": data, "tuning_origin": origin}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return replace(experiment.output, recipes=tuple(recipes), **changes)


def _facts(model: str, experiment: Experiment, license: str) -> TrainingFacts:
    """Returns what is known about the model: much of a run, its name of a row of the table, else nothing."""
    from device_sim.run.facts import facts_of_first_weights, facts_of_run_folder
    from device_sim.run.folder import RunFolder
    from device_sim.run.summary import read_summary
    from export.report.facts import TrainingFacts

    if _is_run(model):
        folder = RunFolder(Path(model))
        facts = facts_of_run_folder(folder, read_summary(folder), experiment, license=license)
    elif _is_file(model):
        facts = TrainingFacts(model=Path(model).stem, license=license)
    else:
        facts = facts_of_first_weights(experiment, license=license)
    return replace(facts, command=" && ".join(filter(None, (facts.command, decisive_command(sys.argv[1:])))))


def decisive_command(arguments: Sequence[str]) -> str:
    """Returns the command without what changes no byte of a bundle: where it goes, which key signs, what is shown.

    >>> decisive_command(["export", "runs/demo", "--out", "b", "--recipe", "int8", "--sign=k.pem", "-q"])
    'fl-mobile export runs/demo --recipe int8'
    """
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in _WITH_VALUE and not value:
            next(rest, None)
        elif name not in (*_WITH_VALUE, "--quiet", "-q", "--debug"):
            kept.append(argument)
    return shlex.join(["fl-mobile", *kept])


def _is_run(model: str) -> bool:
    from device_sim.run.folder import RunFolder

    return RunFolder(Path(model)).experiment.exists()


def _experiment(model: str, dataset: str | None, changes: list[str]) -> Experiment:
    """Returns where the data comes from and, for a named model, what it is built like."""
    from device_sim.experiment.toml import parse_experiment, read_experiment
    from device_sim.run.folder import RunFolder, reopen
    from fl_mobile.errors import ConfigError

    named = [f"data.dataset={dataset}"] if dataset else []
    if _is_run(model):
        reopen(Path(model))
        return read_experiment(RunFolder(Path(model)).experiment, [*named, *changes])
    if not named:
        raise ConfigError(
            "--dataset is missing: a bundle is only written after every artifact was compared with Keras on held-out"
            " examples. Name the dataset the model was trained for; `fl-mobile datasets` lists them."
        )
    return parse_experiment("", [*named, *([] if _is_file(model) else [f"model.name={model}"]), *changes])


def _model(model: str, experiment: Experiment, data: Dataset) -> Any:
    from device_sim.federation.federation import build_of
    from device_sim.run.folder import RunFolder
    from device_sim.run.keras_file import read_model, read_run_model
    from fl_mobile.client.private import NONE
    from fl_mobile.errors import ConfigError

    if _is_run(model):
        if experiment.personal.private != NONE:
            raise ConfigError(
                f"{model}: personal.private '{experiment.personal.private}' left tensors on the devices that trained"
                " them; the server's model holds their first values. Nothing worth exporting can be made of it."
            )
        return read_run_model(RunFolder(Path(model)).model, experiment)
    return read_model(Path(model)) if _is_file(model) else build_of(experiment, data)()


def _is_file(model: str) -> bool:
    return model.endswith(".keras") or "/" in model
