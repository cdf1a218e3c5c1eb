"""``export_model``: Keras model in, proven bundle out.

```
described (traced once) ─▶ Keras answers the held-out frames once
   └─ per recipe, on its own: convert ─▶ metadata and labels into the file ─▶ parity on LiteRT    (export.variants)
write_bundle (neighbour folder, signed) ─▶ verify_bundle on every installed runtime ─▶ rename
```
A recipe that does not suit the model or fails costs no other one: the bundle holds those that passed and says why the
others are not in it. Nothing is at the output path unless at least one passed and the whole bundle its proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundles.folder import ANYONE, Trust, canonical_json, refuse_existing, write_bundle
from export.bundles.phone_task import TASK_FILE, PhoneTask
from export.bundles.signing import SigningKey
from export.convert.conversion import converter_for
from export.convert.recipes import AUTO, RECIPES, Recipe, asked_for
from export.convert.saved import saved_models
from export.convert.to_tflite import convert_ahead, needs_frames, unsuited
from export.model.forms import InputForms
from export.model.frames import count_of, frames_for, take
from export.model.labels import labels_by_output
from export.model.serving import Described, Frames, described
from export.report.card import to_card
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.report.report import BundleReport, to_json, to_markdown, tool_versions
from export.runtimes import RUNTIMES, missing_runtimes
from export.tflite.metadata import label_file, labels_text
from export.tuning.sources import needs_tuning_set
from export.tuning.tune import TuningSet
from export.variants.attempt import Made, Request
from export.variants.make import Outcomes, make_variants
from export.variants.outcome import FAILED, Unmade, nothing_made
from export.verify.bundle import BundleProof, ReplayError, verify_bundle
from export.verify.by_task import TaskTargets
from export.verify.golden import Golden, pack_golden
from export.verify.measured import reference_of
from export.verify.targets import check_targets
from fl_mobile.errors import ExportError


def export_model(
    model: Any,
    out: str | Path,
    *,
    recipes: Sequence[str],
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None,
    representative: Any,
    x_test: Any,
    y_test: Any,
    provenance: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    input_dtype: InputForms = None,
    batch: int = 1,
    tuning: TuningSet | None = None,
    keep_float: Sequence[str] = (),
    training: TrainingFacts = NOTHING_KNOWN,
    sign_with: SigningKey | None = None,
    targets: Sequence[str] = (),
    told: TaskTargets | Mapping[str, TaskTargets] | None = None,
    phone: PhoneTask | None = None,
) -> BundleReport:
    """Writes a verified bundle of ``model`` to the new folder ``out`` and returns what was measured.

    Every recipe is tried on its own: ``BundleReport.unmade`` lists those without an artifact, with the reason.

    Args:
        model: A built Keras 3 model, or what ``described`` found out about one.
        out: A folder that does not exist.
        recipes: Names from ``RECIPES`` and ``TUNED_RECIPES``, ``package.module:name`` of one's own, or ``"auto"`` for
            the smallest file that passes; the order is kept.
        labels: One name per class, in output order; of a model with several outputs a mapping by output name. None
            when no output is classes. They may be given without ``y_test``.
        representative: Raw frames for calibrated recipes; their hash goes into the report. Frames of devices only
            when their owners agreed. May be None when no recipe is calibrated.
        x_test: Held-out raw frames, ``[n, ...]``; of a model with several inputs a mapping by input name, or a tuple.
        y_test: Their classes, ``int[n]``; of a model with several outputs a mapping by the names of those outputs
            that are classes, none or more. Without it answers alone are compared.
        provenance: Where the model comes from, e.g. ``{"experiment": "<hash>"}``; copied into the bundle.
        progress: Called with one line before each step.
        input_dtype: ``"uint8"``, ``"int32"``, ``"float32"`` or ``"float32:LOW..HIGH"``, for all inputs or by name; by
            default rank-4 float inputs are ``uint8`` camera frames.
        batch: Rows that an artifact answers at once; 0 leaves it open: stored with one, any number after resizing.
        tuning: Public or server-side examples that tuned recipes train on; their hash goes into the report.
        keep_float: Keras layers that recipes with 8-bit weights leave in float32; a report names those that cost most.
        training: What is known about how the model came about; goes into its card. Empty fields are unknown.
        sign_with: Signs the bundle; without it anyone could have made it, and ``verify`` says so.
        targets: What decides besides the runtimes that ship: others of ``RUNTIMES``, which are only asked and told
            otherwise, hardware of ``export.verify.targets``, or ``"tflite-2.14"``.
        told: Where the only output is no classes of whole frames, what it should be: numbers, tags, a class at every
            step; of several heads by output name. Artifacts are then held against Keras by the task's metrics too.
        phone: Of a model with one input and one output what an app has to know beside it: ``task.json``.

    Raises:
        ExportError: The model or data cannot become an artifact, ``out`` exists, or several recipes were asked for and
            none could be made.
        ConfigError: A recipe or target is not known, or a runtime is not here.
        ExportError, VerifyError: The only recipe cannot become an artifact, or its artifact is not the model.
    """
    out, say = Path(out), progress or _silent
    refuse_existing(out)
    rows = _rows_of(recipes)
    provenance = provenance or {}
    _check_provenance(provenance)
    check_targets(targets)
    say("keras: answering the held-out frames")
    found = model
    if not isinstance(model, Described):
        found = described(model, input_dtype, classes=y_test is not None or bool(labels), batch=batch)
    calibration, tuning = _calibration_frames(rows, representative, found), _tuning_set(rows, tuning)
    if phone is not None:
        phone.files(found.serving)  # what does not fit is told before anything is converted
    with converter_for(found.serving.parameters) as convert, saved_models(found, convert) as saved:
        convert_ahead(saved, [recipe for recipe in rows if recipe is not AUTO and not recipe.tuning], calibration)
        reference = reference_of(found, x_test, y_test)
        if told is not None:
            by_name = told if isinstance(told, Mapping) else {reference.serving.end.name: told}
            reference = replace(reference, told=by_name)
        request = Request(
            described=found,
            reference=reference,
            calibration=calibration,
            keep_float=keep_float,
            labels=labels_by_output(labels, reference.serving, reference.labels),
            tuning=tuning,
            training=training,
            targets=targets,
            phone=phone,
        )
        outcomes = make_variants(request, rows, saved, say)
    draft = _Draft(out=out, request=request, provenance=dict(provenance), targets=tuple(targets), sign_with=sign_with)
    return _write_what_passes(draft, outcomes, say)


@dataclass(frozen=True)
class _Draft:
    """What a bundle is written from, whichever recipes are in it."""

    out: Path
    request: Request
    provenance: dict[str, str]
    targets: tuple[str, ...]
    sign_with: SigningKey | None


def _write_what_passes(draft: _Draft, outcomes: Outcomes, say: Callable[[str], None]) -> BundleReport:
    """Writes the bundle; an artifact that a runtime answers differently is left out and the others tried again."""
    made, unmade = dict(outcomes.made), list(outcomes.unmade)
    while made:
        say("bundle: writing and replaying the golden frames on every runtime")
        report = _report(draft, made, unmade, outcomes)
        try:
            return replace(report, notes=_write(draft, report, made).notes)
        except ReplayError as error:
            if len(made) == len(error.problems) == 1 and not unmade and not any(one.second for one in made.values()):
                raise
            for recipe, problem in error.problems.items():
                say(f"{recipe}: left out, {problem}")
                second = made[recipe].second
                if second is not None and (stands_in := second()) is not None:
                    made[recipe] = stands_in
                else:
                    del made[recipe]
                    unmade.append(Unmade(recipe, FAILED, problem))
    if len(unmade) == 1 and outcomes.errors:
        raise next(iter(outcomes.errors.values()))
    raise nothing_made(unmade)


def _report(draft: _Draft, made: Mapping[str, Made], unmade: Sequence[Unmade], outcomes: Outcomes) -> BundleReport:
    request, missing = draft.request, missing_runtimes()
    reference, calibration = request.reference, request.calibration
    return BundleReport(
        path=draft.out,
        serving=reference.serving,
        labels=request.labels,
        keras_accuracy=reference.accuracy,
        samples=reference.samples,
        held_out_sha256=_hash_frames(reference.frames),
        calibration_frames=0 if calibration is None else count_of(calibration),
        calibration_sha256=None if calibration is None else _hash_frames(calibration),
        variants=tuple(each.variant for each in made.values()),
        runtimes=tuple(name for name in RUNTIMES if name not in missing),
        missing_runtimes=missing,
        provenance=draft.provenance,
        versions=tool_versions(),
        tunings=outcomes.tunings,
        training=request.training,
        unmade=tuple(unmade),
        targets=draft.targets,
        frontier=outcomes.frontier,
        task=None if request.phone is None else json.loads(request.phone.files(reference.serving)[TASK_FILE]),
    )


def _write(draft: _Draft, report: BundleReport, made: Mapping[str, Made]) -> BundleProof:
    trust = Trust(draft.sign_with.public) if draft.sign_with else ANYONE
    proofs: list[BundleProof] = []
    write_bundle(
        draft.out,
        _files(report, made, draft.request),
        _about(report),
        prove=lambda folder: proofs.append(verify_bundle(folder, trust=trust)),
        sign_with=draft.sign_with,
    )
    return proofs[0]


def _silent(_: str) -> None:
    return None


def _rows_of(recipes: Sequence[str]) -> list[Recipe]:
    if isinstance(recipes, str) or not recipes:
        raise ExportError(f"recipes: expected a list of one or more names, got {recipes!r}")
    if len(set(recipes)) != len(recipes):
        raise ExportError(f"recipes: each name once, got {', '.join(recipes)}")
    return [asked_for(name) for name in recipes]


def _check_provenance(provenance: Mapping[str, str]) -> None:
    for key, value in provenance.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ExportError(f"provenance: expected text for text, got {key!r}: {value!r}")


def _calibration_frames(rows: Sequence[Recipe], representative: Any, found: Described) -> Frames | None:
    calibrated = [recipe for recipe in rows if recipe.calibrated]
    if calibrated and representative is None:
        raise ExportError(needs_frames(calibrated[0]))
    if AUTO in rows and representative is not None:  # without frames it does without recipes that need them
        calibrated = [*calibrated, *(recipe for recipe in RECIPES.values() if recipe.calibrated)]
    if not calibrated or all(unsuited(found.serving, recipe) for recipe in calibrated):
        return None
    return frames_for(found.serving, representative, "representative frames")


def _tuning_set(rows: Sequence[Recipe], tuning: TuningSet | None) -> TuningSet | None:
    tuned = [recipe for recipe in rows if recipe.tuning]
    if tuned and tuning is None:
        raise ExportError(needs_tuning_set(tuned[0]))
    return tuning


def _files(report: BundleReport, made: Mapping[str, Made], request: Request) -> dict[str, bytes]:
    chosen, reference = request.golden_rows, request.reference
    labels = {name: part[chosen] for name, part in reference.labels.items()}
    labels |= {name: told.y[chosen] for name, told in reference.told.items()}
    golden = Golden(
        frames=take(reference.frames, chosen),
        labels=labels,
        keras={name: part[chosen] for name, part in reference.answers.items()},
        outputs={name: each.golden for name, each in made.items()},
    )
    outputs = len(report.serving.outputs)
    return {
        **{f"{name}.tflite": each.graph.data for name, each in made.items()},
        **{label_file(name, outputs): labels_text(names) for name, names in report.labels.items()},
        **({} if request.phone is None else request.phone.files(report.serving)),
        "golden.npz": pack_golden(golden),
        "report.json": canonical_json(to_json(report)),
        "report.md": to_markdown(report).encode(),
        "model_card.md": to_card(report).encode(),
    }


def _about(report: BundleReport) -> dict[str, Any]:
    return {
        "weights_sha256": report.serving.weights_sha256,
        "provenance": dict(report.provenance),
        "versions": dict(report.versions),
    }


def _hash_frames(frames: Frames) -> str:
    digest = hashlib.sha256()
    for part in frames.values():
        digest.update(f"{part.dtype}{list(part.shape)}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
