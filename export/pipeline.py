"""``export_model``: Keras model in, proven bundle out.

```
describe ─▶ Keras answers the held-out frames once
   └─ per recipe: convert ─▶ metadata and labels into the file ─▶ parity on LiteRT
write_bundle (neighbour folder, signed) ─▶ verify_bundle on every installed runtime ─▶ rename
```
Nothing is at the output path unless every recipe passed its own tolerance and the whole bundle its proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.folder import ANYONE, Trust, canonical_json, refuse_existing, write_bundle
from export.bundle.signing import SigningKey
from export.convert.conversion import Converter, converter_for
from export.convert.recipes import Recipe, find_recipe
from export.convert.to_tflite import needs_frames, to_tflite
from export.layers import FloatTwin, check_keep_float, float_twin, keep_in_float, measure_layers
from export.model.frames import count_of, frames_for, take
from export.model.serving import Frames
from export.report.card import to_card
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.report.report import BundleReport, Variant, make_variant, to_json, to_markdown, tool_versions
from export.runtimes import RUNTIMES, missing_runtimes, run_frames
from export.tflite.graph import read_graph
from export.tflite.metadata import About, label_file, labels_text, with_metadata
from export.tuning.sources import TunedSource, check_kept, check_tuned_artifact, tuned_sources
from export.tuning.tune import TuningSet
from export.verify.bundle import verify_bundle
from export.verify.golden import Golden, choose_frames, pack_golden
from export.verify.measured import Reference, check_parity, make_reference, measure_parity
from fl_mobile.errors import ExportError


def export_model(
    model: Any,
    out: str | Path,
    *,
    recipes: Sequence[str],
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    representative: Any,
    x_test: Any,
    y_test: Any,
    provenance: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    input_dtype: str | Mapping[str, str] | None = None,
    tuning: TuningSet | None = None,
    keep_float: Sequence[str] = (),
    training: TrainingFacts = NOTHING_KNOWN,
    sign_with: SigningKey | None = None,
) -> BundleReport:
    """Writes a verified bundle of ``model`` to the new folder ``out`` and returns what was measured.

    Args:
        model: A built Keras 3 classifier that normalises inside itself.
        out: A folder that does not exist.
        recipes: Names from ``RECIPES``; the order is kept.
        labels: One name per class, in output order; of a model with several outputs a mapping by output name.
        representative: Raw frames for calibrated recipes; their hash goes into the report. Frames of devices only
            when their owners agreed. May be None when no recipe is calibrated.
        x_test: Held-out raw frames, ``[n, ...]``; of a model with several inputs a mapping by input name, or a tuple.
        y_test: Their classes, ``int[n]``; of a model with several outputs a mapping by the names of those outputs
            that are classes, one or more.
        provenance: Where the model comes from, e.g. ``{"experiment": "<hash>"}``; copied into the bundle.
        progress: Called with one line before each step.
        input_dtype: ``"uint8"`` or ``"float32"``, for all inputs or by name; by default rank-4 inputs are ``uint8``
            camera frames.
        tuning: Public or server-side examples that tuned recipes train on; their hash goes into the report.
        keep_float: Keras layers that recipes with 8-bit weights leave in float32; a report names those that cost most.
        training: What is known about how the model came about; goes into its card. Empty fields are unknown.
        sign_with: Signs the bundle; without it anyone could have made it, and ``verify`` says so.

    Raises:
        ExportError: The model, data or a recipe cannot become an artifact, or ``out`` exists.
        ConfigError: A recipe name is not known.
        VerifyError: An artifact is not the model, or the finished bundle fails its proof.
    """
    out, say = Path(out), progress or _silent
    refuse_existing(out)
    rows = _rows_of(recipes)
    provenance = provenance or {}
    _check_provenance(provenance)
    say("keras: answering the held-out frames")
    reference = make_reference(model, x_test, y_test, input_dtype=input_dtype)
    names = _labels_by_output(labels, reference)
    calibration = _calibration_frames(rows, representative, reference)
    plan = _Plan(reference, calibration, keep_float, names, training)
    with converter_for(reference.serving.parameters) as convert:
        plain = _origin(model, rows, reference, convert)
        check_keep_float(keep_float, rows, plain.twin)
        sources = tuned_sources(model, rows, tuning, reference, say)
        tuned = {name: _origin(s.model, rows, s.reference, convert, s) for name, s in sources.items()}
        origins = {"": plain, **tuned}
        made = {recipe.name: _make(recipe, origins[recipe.tuning], plan, say) for recipe in rows}
    artifacts = {name: data for name, (_, data) in made.items()}
    missing = missing_runtimes()
    report = BundleReport(
        path=out,
        serving=reference.serving,
        labels=names,
        keras_accuracy=reference.accuracy,
        samples=reference.samples,
        held_out_sha256=_hash_frames(reference.frames),
        calibration_frames=0 if calibration is None else count_of(calibration),
        calibration_sha256=None if calibration is None else _hash_frames(calibration),
        variants=tuple(variant for variant, _ in made.values()),
        runtimes=tuple(name for name in RUNTIMES if name not in missing),
        missing_runtimes=missing,
        provenance=dict(provenance),
        versions=tool_versions(),
        tunings=tuple(source.report for source in sources.values()),
        training=training,
    )
    say("bundle: writing and replaying the golden frames on every runtime")
    trust = Trust(sign_with.public) if sign_with else ANYONE
    write_bundle(
        out,
        _files(report, artifacts, reference),
        _about(report),
        prove=lambda draft: verify_bundle(draft, trust=trust),
        sign_with=sign_with,
    )
    return report


def _silent(_: str) -> None:
    return None


def _rows_of(recipes: Sequence[str]) -> list[Recipe]:
    if isinstance(recipes, str) or not recipes:
        raise ExportError(f"recipes: expected a list of one or more names, got {recipes!r}")
    if len(set(recipes)) != len(recipes):
        raise ExportError(f"recipes: each name once, got {', '.join(recipes)}")
    return [find_recipe(name) for name in recipes]


def _labels_by_output(
    labels: Sequence[str] | Mapping[str, Sequence[str]], reference: Reference
) -> dict[str, tuple[str, ...]]:
    """Returns the class names of every output that has held-out classes."""
    outputs = {end.name: end.num_classes for end in reference.serving.outputs if end.name in reference.labels}
    if not isinstance(labels, Mapping) and len(reference.serving.outputs) == 1:
        labels = dict.fromkeys(outputs, labels)
    if not isinstance(labels, Mapping) or labels.keys() != outputs.keys():
        given = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else type(labels).__name__
        raise ExportError(
            f"labels: expected a mapping with the class names of {', '.join(outputs)}, the outputs with held-out"
            f" classes, got {given}"
        )
    for output, classes in outputs.items():
        _check_labels(labels[output], classes)
    return {output: tuple(labels[output]) for output in outputs}


def _check_labels(labels: Sequence[str], classes: int) -> None:
    if isinstance(labels, str) or len(labels) != classes:
        raise ExportError(f"labels: expected {classes} names, one per class of the model, got {len(labels)}")
    bad = [label for label in labels if not isinstance(label, str) or not label.strip() or not label.isprintable()]
    if bad:
        raise ExportError(f"labels: expected non-empty names of one printable line, got {bad[0]!r}")
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        raise ExportError(f"labels: each name once, got {', '.join(twice)} more than once")


def _check_provenance(provenance: Mapping[str, str]) -> None:
    for key, value in provenance.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ExportError(f"provenance: expected text for text, got {key!r}: {value!r}")


def _calibration_frames(rows: Sequence[Recipe], representative: Any, reference: Reference) -> Frames | None:
    calibrated = [recipe for recipe in rows if recipe.calibrated]
    if not calibrated:
        return None
    if representative is None:
        raise ExportError(needs_frames(calibrated[0]))
    return frames_for(reference.serving, representative, "representative frames")


@dataclass(frozen=True)
class _Origin:
    """What artifacts are converted from: a Keras model, and for a tuned one how it came about."""

    model: Any
    convert: Converter
    twin: FloatTwin | None
    tuned: TunedSource | None = None


def _origin(
    model: Any, rows: Sequence[Recipe], reference: Reference, convert: Converter, tuned: TunedSource | None = None
) -> _Origin:
    """The float32 twin is what quantised artifacts are compared with layer by layer; others need none."""
    quantized = any(recipe.weight_bits == 8 for recipe in rows)
    twin = float_twin(model, reference.serving.input_dtypes, convert) if quantized else None
    return _Origin(model, convert, twin, tuned)


@dataclass(frozen=True)
class _Plan:
    """What every artifact of a bundle has in common."""

    reference: Reference
    calibration: Frames | None
    keep_float: Sequence[str]
    labels: Mapping[str, Sequence[str]]
    training: TrainingFacts


def _make(recipe: Recipe, origin: _Origin, plan: _Plan, say: Callable[[str], None]) -> tuple[Variant, bytes]:
    say(f"{recipe.name}: converting")
    reference, keep_float, dtypes = plan.reference, plan.keep_float, plan.reference.serving.input_dtypes
    data = to_tflite(origin.model, recipe, input_dtype=dtypes, representative=plan.calibration, convert=origin.convert)
    twin = origin.twin if recipe.weight_bits == 8 else None
    if keep_float and twin:
        data = keep_in_float(data, twin, keep_float)
    data = with_metadata(data, _about_artifact(recipe, plan), plan.labels)
    if origin.tuned is not None:
        check_tuned_artifact(origin.tuned, recipe, data)
    say(f"{recipe.name}: comparing with Keras on {reference.samples} frames")
    parity = measure_parity(reference, recipe, data)
    parity = check_kept(parity, recipe) if recipe.tuning else check_parity(parity)
    golden = take(reference.frames, _golden_rows(reference))
    layers = measure_layers(data, twin, golden, keep_float) if twin else None
    return make_variant(recipe, data, read_graph(data), parity, layers), data


def _about_artifact(recipe: Recipe, plan: _Plan) -> About:
    return About(
        name=plan.training.model,
        description=f"Exported by fl-mobile with recipe {recipe.name}, compared with Keras on"
        f" {plan.reference.samples} held-out examples. Model card and report are in its bundle.",
        version=plan.reference.serving.weights_sha256[:16],
        license=plan.training.license,
    )


def _golden_rows(reference: Reference) -> np.ndarray:
    """Returns indices of frames that show every class of the first output with classes."""
    return choose_frames(next(iter(reference.labels.values())))


def _files(report: BundleReport, artifacts: Mapping[str, bytes], reference: Reference) -> dict[str, bytes]:
    chosen = _golden_rows(reference)
    frames = take(reference.frames, chosen)
    golden = Golden(
        frames=frames,
        labels={name: part[chosen] for name, part in reference.labels.items()},
        keras={name: part[chosen] for name, part in reference.answers.items()},
        outputs={name: run_frames("litert", data, frames) for name, data in artifacts.items()},
    )
    outputs = len(report.serving.outputs)
    return {
        **{f"{name}.tflite": data for name, data in artifacts.items()},
        **{label_file(name, outputs): labels_text(names) for name, names in report.labels.items()},
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
