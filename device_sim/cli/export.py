"""``fl-mobile export``: a Keras model, a run or a named model as a proven TFLite bundle."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import prove_command

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment, Output
    from device_sim.run.which_model import WhichModel
    from export import BundleReport
    from export.report.facts import TrainingFacts

_WITH_VALUE = ("--out", "--sign", "--format")


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .keras or .h5 file, a run folder, or a model's name.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the bundle.")],
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="TFLite variant; repeatable. auto finds the smallest that is still the model. Default: the core four.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Whose held-out examples prove the bundle; a run folder knows its own.")
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Instead of a dataset: an array per input by its name, and y where there are classes.",
        ),
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
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME=]FORM",
            help="What an input is given: uint8, int32, float32 or float32:LOW..HIGH. Default: as the data.",
        ),
    ] = None,
    labelled: Annotated[
        str, typer.Option("--output", metavar="NAME", help="Output whose classes the labels are; none if none is.")
    ] = "",
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="Decides too: a runtime (tflite-runtime), hardware (edge-tpu, nnapi …) or tflite-2.14; repeatable.",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Module of your own layers that a model file is made of."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="Rows of a batch, 0 for any number; default 1, with --training the run's, else 16."),
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
      fl-mobile export runs/demo --out bundles/smallest --recipe auto
      fl-mobile export runs/demo --out bundles/mixed --recipe int8 --keep-float logits
      fl-mobile export runs/demo/model.keras --out bundles/digits --dataset mnist-5k
      fl-mobile export runs/demo --out bundles/tuned --recipe qat-int8 --tuning-data mine.npz --tuning-origin server
      fl-mobile export runs/demo --out bundles/release --sign keys/release.pem --license Apache-2.0
      fl-mobile export mlp --out bundles/untrained --dataset digits --recipe float32
      fl-mobile export two_inputs.keras --out bundles/two --frames frames.npz --recipe auto
      fl-mobile export mine.h5 --out bundles/mine --dataset mnist-5k --import my_layers --input float32:0..1
      fl-mobile export smart-camera-cnn --training --out programs/camera --sign keys/release.pem
      fl-mobile export runs/demo --training --out programs/demo
      fl-mobile export mine.keras --training --out programs/mine --loss mse --optimizer adam --dataset mnist-5k
    """
    from fl_mobile.errors import ConfigError

    if training:
        from device_sim.cli.program import export_program

        shaping: dict[str, object] = {
            "--recipe": recipes,
            "--keep-float": keep_float,
            "--labels": labels,
            "--license": license,
            "--frames": frames,
        }
        shaping |= {"--tuning-data": tuning_data, "--tuning-origin": tuning_origin, "--input": inputs}
        for option, given in {**shaping, "--output": labelled, "--target": targets}.items():
            if given:
                raise ConfigError(f"{option} shapes a bundle, and --training writes a program instead. Leave one out.")
        named = {"train.loss": loss, "train.optimizer": optimizer}
        export_program(
            *(model, out),
            dataset=dataset,
            changes=[*(changes or []), *(f"{key}={value}" for key, value in named.items() if value)],
            imports=imports or (),
            batch_size=batch_size,
            sign=sign,
            quiet=quiet,
            output=output,
        )
        return
    for option, said in (("--optimizer", optimizer), ("--loss", loss)):
        if said is not None:
            raise ConfigError(f"{option} shapes a training program: give --training too, or leave it out")
    from device_sim.federation.dealing import open_dataset
    from device_sim.run.held_out import export_with_held_out
    from device_sim.run.keras_file import read_model
    from device_sim.run.own_frames import read_frames
    from device_sim.run.tuning_data import open_tuning_set
    from device_sim.run.which_model import WhichModel
    from export import CORE_RECIPES, bundle
    from export.bundles.folder import refuse_existing
    from export.bundles.signing import read_signing_key
    from export.report.facts import TrainingFacts

    sign_with = None if sign is None else read_signing_key(sign)  # before anything slow: a wrong key is told at once
    refuse_existing(out)
    tell = (lambda _: None) if quiet else say
    which = WhichModel(model, tuple(imports or ()))
    shape: dict[str, Any] = {
        "say": tell,
        "labels": None if labels is None else labels.read_text(encoding="utf-8").splitlines(),
        "sign_with": sign_with,
        "keep_float": keep_float or (),
        "forms": _forms(inputs or []),
        "output": labelled,
        "batch": 1 if batch_size is None else batch_size,
        "targets": targets or (),
    }
    if frames is not None:
        _refuse_beside_frames(which, {"--dataset": dataset, "--tuning-data": tuning_data, "--set": changes})
        with while_loading():
            own_model = read_model(Path(model), which.imports)
        facts = _with_command(TrainingFacts(model=Path(model).stem, license=license))
        arrays = read_frames(frames)
        report = bundle(
            own_model,
            arrays,
            y=arrays.pop("y", None),
            recipes=recipes or CORE_RECIPES,
            training=facts,
            provenance={"frames_sha256": hashlib.sha256(frames.read_bytes()).hexdigest()},
            inputs=shape.pop("forms"),
            progress=shape.pop("say"),
            out=out,
            **shape,
        )
        _tell(report=report, out=out, sign=sign, named=recipes or (), output=output)
        return
    experiment = which.experiment(dataset, changes or [])
    wanted = _output(experiment, recipes or CORE_RECIPES, tuning_data, tuning_origin)
    data = open_dataset(experiment)
    with while_loading():
        keras_model = which.open(experiment, data)
    report = export_with_held_out(
        keras_model,
        out,
        data,
        experiment.seed,
        recipes=wanted.recipes,
        provenance={"model": model, "dataset": data.fingerprint},
        training=_with_command(which.facts(experiment, license)),
        tuning=open_tuning_set(
            wanted,
            held_out=data.test,
            on_devices=data.train if which.is_run else None,
            seed=experiment.seed,
            say=tell,
        ),
        loss=which.loss(experiment, data),
        hop=experiment.data.hop or None,
        **shape,
    )
    _tell(report=report, out=out, sign=sign, named=recipes or (), output=output)


def _refuse_beside_frames(which: WhichModel, others: Mapping[str, object]) -> None:
    """Refuses options that name other examples than ``--frames``, and models that know theirs.

    Raises:
        ConfigError: One of them is given.
    """
    from device_sim.run.which_model import FILE
    from fl_mobile.errors import ConfigError

    if which.kind != FILE:
        raise ConfigError(f"--frames proves a model file, and {which.text} is none: it has a dataset. Leave it out.")
    for option, given in others.items():
        if given:
            raise ConfigError(f"{option} is about other examples than --frames. Leave one out.")


def _tell(report: BundleReport, out: Path, sign: Path | None, named: Sequence[str], output: Format) -> None:
    """Prints what was made; ends with an error where something that was asked for was not."""
    from device_sim.cli.tables import artifact_rows, search_table
    from device_sim.run.finish import summarise_export
    from export.report.report import floats_told

    summary = summarise_export(report)
    if output is Format.JSON:
        print_json({"bundle": str(out), **summary})
        _refuse_unmade(summary, named=named)
        return
    searched = [search_table(summary["search"])] if summary["search"] else []
    print_tables([*searched, make_table("", ("artifact", "size", "parity"), artifact_rows(summary))])
    for artifact in summary["artifacts"]:
        if artifact["float_ops"]:
            print(f"{artifact['file']} {floats_told(artifact['float_ops'])}")
        if artifact["advice"]:
            print(f"{artifact['file']}: {artifact['advice']}")
    for note in summary["notes"]:
        print(f"Told, not judged: {note}; --target lets that runtime decide")
    print(f"Bundle:   {out}\nProve it: {prove_command(out, sign)}")
    _refuse_unmade(summary, named=named)


def _refuse_unmade(summary: dict[str, Any], *, named: Sequence[str]) -> None:
    """Ends with an error when a recipe failed, or one that was asked for by name was skipped."""
    from device_sim.run.finish import refuse_failed
    from export.variants.outcome import FAILED

    unmade = [{**each, "outcome": FAILED} if each["recipe"] in named else each for each in summary["unmade"]]
    refuse_failed({"export": {**summary, "unmade": unmade}})


def _forms(given: Sequence[str]) -> str | dict[str, str] | None:
    """Returns what ``--input`` says: one form for all inputs, or one by name."""
    from fl_mobile.errors import ConfigError

    named = dict(each.split("=", 1) for each in given if "=" in each)
    plain = [each for each in given if "=" not in each]
    if len(plain) > 1 or (plain and named) or len(named) + len(plain) != len(given):
        raise ConfigError(f"--input: one form for all inputs, or NAME=FORM once for each, got {', '.join(given)}")
    return named or (plain[0] if plain else None)


def _with_command(facts: TrainingFacts) -> TrainingFacts:
    return replace(facts, command=" && ".join(filter(None, (facts.command, decisive_command(sys.argv[1:])))))


def _output(experiment: Experiment, recipes: Sequence[str], data: str | None, origin: str | None) -> Output:
    """Returns [output] of the experiment with what the command line says instead."""
    given = {"tuning_data": data, "tuning_origin": origin}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return replace(experiment.output, recipes=tuple(recipes), **changes)


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
