"""After the last round: ``model.keras``, ``summary.json``, and the TFLite bundle with its parity.

```
checkpoint ─▶ model.keras ─▶ summary.json ─▶ export_model ─▶ bundle/ ─▶ summary.json again, with the artifacts
```
Each step leaves whole files behind, and a run that died between two of them goes on at the first one missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets import Dataset
from device_sim.federation.federation import Federation
from device_sim.run.best import kept_models, write_models
from device_sim.run.evaluation import federated_evaluation
from device_sim.run.facts import facts_of_run
from device_sim.run.folder import RunFolder
from device_sim.run.health import evidence_of, trained_nothing, warnings_of
from device_sim.run.log import Round
from device_sim.run.loop import restore
from device_sim.run.summary import summarise
from device_sim.run.tuning_data import open_tuning_set
from export import BundleReport, export_model
from export.bundle.folder import read_bundle
from export.bundle.signing import SigningKey
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.tuning import TuningSet
from fl_mobile.errors import RunError, VerifyError
from fl_mobile.seeds import rng_for
from fl_mobile.storage.files import temporary, write_json
from fl_mobile.storage.shelf import Shelf

CALIBRATION_EXAMPLES = 100
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
    kept, beside = kept_models(federation.experiment, folder, rounds, state.weights)
    state = replace(state, round_num=kept.round_num + 1, weights=kept.weights)
    model = write_models(federation, folder, kept, beside)
    if federation.test_parts:
        say("devices: evaluating the model on each one's own held-out examples")
    on_devices = federated_evaluation(federation, Shelf(folder.memory), state)
    summary = {
        **summarise(federation, rounds, kept, beside, command=command),
        "federated_evaluation": on_devices,
        "warnings": warnings_of(federation.experiment, rounds, evidence_of(federation, kept)),
    }
    write_json(folder.summary, summary)
    if not recipes or trained_nothing(rounds):
        return summary
    clear_unnamed_bundle(folder, summary["experiment_sha256"])
    report = export_with_held_out(
        *(model, folder.bundle, federation.dataset, federation.experiment.seed),
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
    )
    summary["export"] = summarise_export(report)
    write_json(folder.summary, summary)
    return summary


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


def export_with_held_out(
    model: Any,
    out: Path,
    dataset: Dataset,
    seed: int,
    *,
    recipes: Sequence[str],
    provenance: dict[str, str],
    say: Say,
    labels: Sequence[str] | None = None,
    tuning: TuningSet | None = None,
    training: TrainingFacts = NOTHING_KNOWN,
    sign_with: SigningKey | None = None,
    keep_float: Sequence[str] = (),
) -> BundleReport:
    """Exports ``model``; calibrates on 100 held-out examples and proves parity on all the others.

    The held-out part belongs to the server: no device's example decides a range that ships in the file, and no
    example that calibrated is counted as proof.
    """
    calibration, proof = calibration_split(len(dataset.test), seed)
    return export_model(
        model,
        out,
        recipes=recipes,
        labels=dataset.labels if labels is None else labels,
        representative=dataset.test.x[calibration],
        x_test=dataset.test.x[proof],
        y_test=dataset.test.y[proof],
        provenance=provenance,
        progress=say,
        tuning=tuning,
        training=training,
        sign_with=sign_with,
        keep_float=keep_float,
    )


def calibration_split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rising indices of held-out examples for calibration (100, at most half) and for the proof (the rest).

    >>> calibration, proof = calibration_split(1000, seed=0)
    >>> len(calibration), len(proof), np.intersect1d(calibration, proof).size
    (100, 900, 0)
    """
    order = rng_for(seed, "calibration").permutation(count)
    cut = min(CALIBRATION_EXAMPLES, count // 2)
    return np.sort(order[:cut]), np.sort(order[cut:])


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
                "accuracy_diff": variant.parity.accuracy - variant.parity.keras_accuracy,
                "argmax_agreement": variant.parity.argmax_agreement,
                "max_abs_diff": variant.parity.max_abs_diff,
                "kept_float": [] if variant.layers is None else list(variant.layers.kept_float),
                "advice": "" if variant.layers is None else variant.layers.advice,
            }
            for variant in report.variants
        ],
    }
