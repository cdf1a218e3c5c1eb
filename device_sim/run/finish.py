"""After the last round: ``model.keras``, ``summary.json``, and the TFLite bundle with its parity.

```
checkpoint ─▶ model.keras ─▶ summary.json ─▶ export_model ─▶ bundle/ ─▶ summary.json again, with the artifacts
```
Each step leaves whole files behind, and a run that died between two of them goes on at the first one missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from device_sim.federation.federation import Federation
from device_sim.run.best import kept_models, write_models
from device_sim.run.errors import kept_errors
from device_sim.run.evaluation import federated_evaluation
from device_sim.run.facts import facts_of_run
from device_sim.run.folder import RunFolder
from device_sim.run.health import evidence_of, trained_nothing, warnings_of
from device_sim.run.held_out import (
    answers_classes,
    export_with_held_out,
    finished,
    forms_of,
    frames_of,
    refuse_tuned,
)
from device_sim.run.kinds import kinds_of
from device_sim.run.log import Round
from device_sim.run.loop import restore
from device_sim.run.summary import summarise
from device_sim.run.tuning_data import open_tuning_set
from export import BundleReport
from export.bundles.folder import read_bundle
from export.bundles.signing import SigningKey
from export.variants.forecast import check_exportable
from export.variants.outcome import FAILED, Unmade, told_together
from fl_mobile.errors import ConfigError, DataError, ExportError, RunError, VerifyError
from fl_mobile.storage.files import temporary, write_json
from fl_mobile.storage.shelf import Shelf

Say = Callable[[str], None]


def finish(
    federation: Federation,
    folder: RunFolder,
    rounds: Sequence[Round],
    *,
    command: str,
    recipes: Sequence[str],
    say: Say,
    sign_with: SigningKey | None = None,
    license: str = "",
) -> dict[str, Any]:
    """Writes what a finished run leaves behind and returns its summary.

    Args:
        recipes: TFLite variants to export; none leaves ``summary["export"]`` None.
        say: Told before each step.
        sign_with: Signs the bundle.
        license: Of the exported weights, for model card and metadata; empty is not stated.
    """
    say("model.keras: writing the global model")
    state, _ = restore(federation, folder)
    kept, beside = kept_models(federation.experiment, folder, rounds, state.model)
    state = replace(state, round_num=kept.round_num + 1, weights=kept.weights, averages={})
    model = write_models(federation, folder, kept, beside)
    if federation.test_parts:
        say("devices: evaluating the model on each one's own held-out examples")
    with kept_errors(folder, f"after round {len(rounds)}", safe=len(rounds)):
        summary = {
            **summarise(federation, rounds, kept, beside, command=command),
            "by_kind": kinds_of(federation, folder),
            "federated_evaluation": federated_evaluation(federation, Shelf(folder.memory), state),
            "warnings": warnings_of(federation.experiment, rounds, evidence_of(federation, kept)),
        }
    write_json(folder.summary, summary)
    if not recipes or trained_nothing(rounds):
        return summary
    clear_unnamed_bundle(folder, summary["experiment_sha256"])
    with rounds_are_safe(folder, recipes):
        report = _exported(
            federation, folder, model, summary, recipes=recipes, say=say, sign_with=sign_with, license=license
        )
    summary["export"] = summarise_export(report)
    write_json(folder.summary, summary)
    return summary


def _exported(
    federation: Federation,
    folder: RunFolder,
    model: Any,
    summary: dict[str, Any],
    *,
    recipes: Sequence[str],
    say: Say,
    sign_with: SigningKey | None,
    license: str,
) -> BundleReport:
    return export_with_held_out(
        model,
        folder.bundle,
        federation.dataset,
        federation.experiment.seed,
        recipes=recipes,
        tuning=open_tuning_set(
            federation.experiment.output,
            held_out=federation.dataset.test,
            on_devices=federation.dataset.train,
            seed=federation.experiment.seed,
            say=say,
        ),
        provenance={"experiment_sha256": summary["experiment_sha256"], "dataset": federation.dataset.fingerprint},
        say=say,
        training=facts_of_run(federation.experiment, summary, license=license),
        sign_with=sign_with,
        loss=federation.plain_plan(0).loss,
        hop=federation.experiment.data.hop or None,
    )


@contextlib.contextmanager
def rounds_are_safe(folder: RunFolder, recipes: Sequence[str]) -> Iterator[None]:
    """Says of an error in the block that the rounds are kept, and what goes on from them.

    Args:
        recipes: What is exported in the block.
    """
    try:
        yield
    except (ExportError, VerifyError, DataError, ConfigError) as error:
        others = [name for name in _SUREST if name not in recipes][:1]
        other = others if isinstance(error, (ExportError, VerifyError)) else []
        error.args = (
            f"export of {', '.join(recipes)}: {error} Nothing that was trained is lost: {folder.model} and"
            f" {folder.summary.name} are written. Go on with: {_on_with(folder, other)}",
        )
        raise


_SUREST = ("float32", "float16")
"""Recipes that round nothing or little: what one of the others fails by, they do not."""


def _on_with(folder: RunFolder, recipes: Sequence[str]) -> str:
    """Returns what exports a finished run once more, by other recipes if there are some."""
    if folder.objects.exists():  # its model or clients are objects of a program
        again = f"recipes={list(recipes)}" if recipes else ""
        return f"device_sim.simulate(…, out={str(folder.path)!r}, resume=True).finish({again})"
    changed = ["--set", f"output.recipes={json.dumps(list(recipes))}"] if recipes else []
    return shlex.join(["fl-mobile", "simulate", "--out", str(folder.path), "--resume", *changed])


def check_before_training(federation: Federation, recipes: Sequence[str], say: Say) -> None:
    """Tells which of ``recipes`` no artifact can be made by, before the first round.

    Raises:
        ExportError: None of them can.
    """
    dataset = federation.dataset
    model = federation.build()
    if dataset.ends is not None:
        refuse_tuned(recipes)
        model = finished(model, dataset, federation.plain_plan(0).loss)
    try:
        unmade = check_exportable(
            model,
            recipes,
            examples=frames_of(dataset, dataset.test.x[:8]),
            input_dtype=forms_of(dataset),
            classes=answers_classes(model, dataset),
        )
    except ExportError as error:
        error.args = (
            f"nothing could be exported after the last round: {error} Nothing was trained. Name other recipes"
            " (--set output.recipes=…), or train without exporting (--no-export).",
        )
        raise
    for each in unmade:
        say(f"export: {each}")


def refuse_failed(summary: Mapping[str, Any]) -> None:
    """Raises ``ExportError`` when recipes failed, after the others were written and told."""
    failed = [each for each in (summary["export"] or {}).get("unmade", ()) if each["outcome"] == FAILED]
    if failed:
        told = told_together(Unmade(**each) for each in failed)
        made = ", ".join(artifact["recipe"] for artifact in summary["export"]["artifacts"])
        raise ExportError(f"{told} The others are written: {made}.")


def clear_unnamed_bundle(folder: RunFolder, experiment_sha256: str) -> None:
    """Removes the bundle of a run that was killed after the bundle was in place and before the summary named it.

    Raises:
        RunError: Something else lies there.
    """
    if not folder.bundle.exists():
        return
    try:
        made_by = read_bundle(folder.bundle).manifest["provenance"]["experiment_sha256"]
    except (VerifyError, KeyError, TypeError):
        made_by = None
    if made_by != experiment_sha256:
        raise RunError(f"{folder.bundle} is not a bundle of this run. Move it away and run again with --resume.")
    doomed = temporary(folder.bundle)
    os.rename(folder.bundle, doomed)  # a kill from here on leaves what the next start clears away
    shutil.rmtree(doomed)


def summarise_export(report: BundleReport) -> dict[str, Any]:
    """Returns what a summary says about the artifacts; the bundle's own report says the rest."""
    return {
        "keras_accuracy": report.keras_accuracy,
        "proof_examples": report.samples,
        "calibration_examples": report.calibration_frames,
        "replayed_on": list(report.runtimes),
        "artifacts": [
            {
                "recipe": variant.recipe,
                "file": variant.file,
                "bytes": variant.bytes,
                "zipped_bytes": variant.zipped_bytes,
                "sha256": variant.sha256,
                "accuracy": variant.parity.accuracy,
                "accuracy_diff": variant.parity.accuracy_diff,
                "argmax_agreement": variant.parity.argmax_agreement,
                "max_abs_diff": variant.parity.max_abs_diff,
                "metrics": {name: list(pair) for name, pair in variant.parity.metrics.items()},
                "kept_float": [] if variant.layers is None else list(variant.layers.kept_float),
                "kept_int16": [] if variant.layers is None else list(variant.layers.kept_int16),
                "made_as": variant.made_as,
                "float_ops": list(variant.float_ops),
                "advice": "" if variant.layers is None else variant.layers.advice,
            }
            for variant in report.variants
        ],
        "search": report.searched,
        "unmade": [each.to_json() for each in report.unmade],
        "notes": list(report.notes),
    }
