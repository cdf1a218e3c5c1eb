"""What an export measured: one record per artifact, as JSON for programs and as a table for people.

No time is in it: how fast a host happened to be would make every bundle different, and ``fl-mobile benchmark``
measures that.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from export.bundles.folder import sha256
from export.convert.recipes import Recipe, find_recipe
from export.layers import LayerReport, layer_lines
from export.model.forms import Entry
from export.model.serving import SIGNATURE, End, Serving
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.tflite.graph import Graph
from export.tflite.metadata import label_file
from export.tuning.tune import TuningReport
from export.variants.frontier import Frontier
from export.variants.outcome import FAILED, Unmade
from export.verify.parity import Parity

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "fl-mobile")
_HEADS = {
    "softmax": "ends in softmax; left alone",
    "sigmoid": "ends in sigmoid; left alone",
    "logits": "ends in logits; a softmax was added in the graph",
    "values": "ends in plain values; left alone",
    "one-sigmoid": "ends in one sigmoid unit; the file answers both classes",
    "one-logit": "ends in one logit; the file answers the probabilities of both classes",
}


@dataclass(frozen=True)
class Variant:
    """One artifact of a bundle.

    Attributes:
        recipe: Name of the recipe; the file is ``<recipe>.tflite``.
        bytes: Length of the file.
        zipped_bytes: Length after deflate, as inside an APK.
        sha256: Of the file.
        graph: What the flatbuffer holds.
        parity: Against Keras on the whole held-out set, on LiteRT.
        layers: Noise of every layer; None for artifacts that are not quantised.
        conversion: Of a searched recipe, or of one's own, the plain one whose gates it passed; empty otherwise.
        made_as: Of a searched recipe what it found, e.g. ``"int8, in float32: logits"``.
    """

    recipe: str
    bytes: int
    zipped_bytes: int
    sha256: str
    graph: Graph
    parity: Parity
    layers: LayerReport | None = None
    conversion: str = ""
    made_as: str = ""

    @property
    def float_ops(self) -> tuple[str, ...]:
        """Operations that an artifact of integers computes on floats: TFLite has no others, or a layer was kept so."""
        return self.graph.float_ops if self.gates.calibrated else ()

    @property
    def gates(self) -> Recipe:
        """The recipe whose tolerance it was judged by."""
        return find_recipe(self.conversion or self.recipe)

    @property
    def suits(self) -> str:
        """What it is for, and of a searched recipe what was found."""
        return self.made_as or find_recipe(self.recipe).suits

    @property
    def file(self) -> str:
        """File name inside the bundle."""
        return f"{self.recipe}.tflite"


@dataclass(frozen=True)
class BundleReport:
    """Everything ``export_model`` found out.

    Attributes:
        path: The bundle folder.
        serving: How the model is served.
        labels: Output name → class names in output order, for the outputs that are classes.
        keras_accuracy: Share of held-out frames Keras gets right.
        samples: Number of held-out frames.
        held_out_sha256: Of the held-out frames.
        calibration_frames: Number of frames given for calibration.
        calibration_sha256: Of those frames; None without calibration.
        variants: One per recipe, in the order asked for.
        runtimes: Runtimes that replayed the golden frames.
        missing_runtimes: Runtime → why it could not.
        provenance: Where the model comes from, as the caller said.
        versions: Package → version.
        tunings: How the weights of tuned recipes came about, one per tuning.
        training: What whoever trained the model said about it.
        unmade: Recipes that were asked for and have no artifact here.
        targets: Runtimes and hardware that decide besides what LiteRT ships, because the user named them.
        notes: What runtimes that do not decide answered differently.
        frontier: What recipe ``auto`` tried.
        task: Content of ``task.json``; None in a bundle without one.
    """

    path: Path
    serving: Serving
    labels: Mapping[str, tuple[str, ...]]
    keras_accuracy: float | None
    samples: int
    held_out_sha256: str
    calibration_frames: int
    calibration_sha256: str | None
    variants: tuple[Variant, ...]
    runtimes: tuple[str, ...]
    missing_runtimes: Mapping[str, str]
    provenance: Mapping[str, str]
    versions: Mapping[str, str]
    tunings: tuple[TuningReport, ...] = ()
    training: TrainingFacts = NOTHING_KNOWN
    unmade: tuple[Unmade, ...] = ()
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frontier: Frontier | None = None
    task: Mapping[str, Any] | None = None

    @property
    def searched(self) -> dict[str, Any] | None:
        """What recipe ``auto`` tried and chose, in JSON types; None when it was not asked for."""
        return None if self.frontier is None else self.frontier.to_json(self.chosen)

    @property
    def chosen(self) -> str:
        """Name of the candidate that recipe ``auto`` wrote; empty when it wrote none."""
        return next((variant.made_as for variant in self.variants if variant.made_as), "")

    @property
    def failed(self) -> tuple[Unmade, ...]:
        """Recipes that were tried and have no artifact."""
        return tuple(each for each in self.unmade if each.outcome == FAILED)


def make_variant(recipe: Recipe, graph: Graph, parity: Parity, layers: LayerReport | None) -> Variant:
    """Returns the record of the artifact ``graph``."""
    return Variant(
        recipe=recipe.name,
        bytes=graph.file_bytes,
        zipped_bytes=len(zlib.compress(graph.data, 9)),
        sha256=sha256(graph.data),
        graph=graph,
        parity=parity,
        layers=layers,
        conversion="" if recipe.tuning else recipe.conversion,
    )


def tool_versions() -> dict[str, str]:
    """Returns the versions that decide the bytes of an artifact."""
    found = {"python": python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # fl-mobile run from its source tree, or a verifier without TensorFlow
            continue
    return found


def to_json(report: BundleReport) -> dict[str, Any]:
    """Returns the content of ``report.json``; the bundle's place on disk is not part of it."""
    return {
        "model": asdict(report.serving),
        "labels": {output: list(names) for output, names in report.labels.items()},
        "task": report.task,
        "held_out": {
            "samples": report.samples,
            "sha256": report.held_out_sha256,
            "keras_accuracy": report.keras_accuracy,
        },
        "calibration": {"frames": report.calibration_frames, "sha256": report.calibration_sha256},
        "tunings": [tuning.to_json() for tuning in report.tunings],
        "variants": [_variant_json(variant) for variant in report.variants],
        "unmade": [each.to_json() for each in report.unmade],
        "search": report.searched,
        "targets": list(report.targets),
        "runtimes": {"replayed": list(report.runtimes), "missing": dict(report.missing_runtimes)},
        "training": asdict(report.training),
        "provenance": dict(report.provenance),
        "versions": dict(report.versions),
    }


def _variant_json(variant: Variant) -> dict[str, Any]:
    parity, recipe = variant.parity, variant.gates
    return {
        "recipe": variant.recipe,
        "conversion": variant.conversion,
        "suits": variant.suits,
        "file": variant.file,
        "bytes": variant.bytes,
        "zipped_bytes": variant.zipped_bytes,
        "sha256": variant.sha256,
        "accuracy": parity.accuracy,
        "accuracy_diff": parity.accuracy_diff,
        "argmax_agreement": parity.argmax_agreement,
        "tie_flips": parity.tie_flips,
        "max_abs_diff": parity.max_abs_diff,
        "mean_abs_diff": parity.mean_abs_diff,
        "metrics": {name: {"keras": theirs, "artifact": ours} for name, (theirs, ours) in parity.metrics.items()},
        "outputs": [asdict(end) for end in parity.outputs],
        "parity_runtime": parity.runtime,
        "tolerance": asdict(recipe.tolerance),
        "weights": variant.graph.weights,
        "ops": list(variant.graph.ops),
        "float_ops": list(variant.float_ops),
        "builtin_ops_only": not variant.graph.foreign_ops,
        "signature": signature_json(variant.graph),
        "layers": variant.layers.to_json() if variant.layers else None,
        "calibrated": recipe.calibrated,
    }


def signature_json(graph: Graph) -> dict[str, Any]:
    """Returns the serving signature of ``graph`` in JSON types."""
    signature = graph.signature(SIGNATURE)
    ends = {"inputs": signature.inputs, "outputs": signature.outputs}
    sides = {side: [{**asdict(t), "shape": list(t.shape)} for t in tensors] for side, tensors in ends.items()}
    return {"key": signature.key, **sides}


def to_markdown(report: BundleReport) -> str:
    """Returns ``report.md``: the table a person reads first."""
    serving = report.serving
    lines = [
        "# Exported model",
        "",
        *(_entry_line(entry, open_batch=serving.open_batch) for entry in serving.inputs),
        *(_end_line(end, report) for end in serving.outputs),
        f"Keras: {told(report.keras_accuracy, '.2%')} of {report.samples} held-out frames,"
        f" {serving.parameters:,} parameters, weights `{serving.weights_sha256[:16]}…`.",
        "",
        "| recipe | bytes | zipped | accuracy | Δ Keras | same class | max Δp | mean Δp | for |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
        *(_row(variant) for variant in report.variants),
        *metric_lines(report.variants),
        *_float_lines(report.variants),
        *_unmade_lines(report.unmade),
        *(report.frontier.lines(report.chosen) if report.frontier else ()),
        "",
        "Accuracy and differences: LiteRT on the whole held-out set. Operations: TFLite builtins only.",
        f"Golden frames replayed on: {', '.join(report.runtimes)}."
        + "".join(f" Not on {name}: {reason}." for name, reason in report.missing_runtimes.items()),
        f"Calibration: {report.calibration_frames} frames, SHA-256 `{report.calibration_sha256[:16]}…`."
        if report.calibration_sha256
        else "Calibration: none.",
        *(tuning.sentence() for tuning in report.tunings),
        *(
            line
            for variant in report.variants
            if variant.layers
            for line in layer_lines(variant.recipe, variant.layers)
        ),
        "",
        *(f"- {key}: {value}" for key, value in sorted(report.provenance.items())),
        f"- made with: {', '.join(f'{name} {number}' for name, number in report.versions.items())}",
    ]
    return "\n".join(lines) + "\n"


def metric_lines(variants: Sequence[Variant]) -> list[str]:
    """Returns what artifacts are worth at their task, beside Keras; none for classes of whole frames."""
    lines = [
        f"- `{v.recipe}`: " + ", ".join(f"{n} {ours:.4g} (Keras {theirs:.4g})" for n, (theirs, ours) in found.items())
        for v in variants
        if (found := v.parity.metrics)
    ]
    return ["", "At its task, on the held-out set:", "", *lines] if lines else []


def floats_told(names: Sequence[str]) -> str:
    """Returns what is said of operations that an artifact of integers computes on floats.

    >>> floats_told(["ELU", "NEG"])
    'computes ELU, NEG in float32; processors of integers alone refuse that, --target asks them'
    """
    return f"computes {', '.join(names)} in float32; processors of integers alone refuse that, --target asks them"


def _float_lines(variants: Sequence[Variant]) -> list[str]:
    lines = [f"- `{v.recipe}` {floats_told(v.float_ops)}" for v in variants if v.float_ops]
    return ["", "Not in integers:", "", *lines] if lines else []


def _unmade_lines(unmade: Sequence[Unmade]) -> list[str]:
    if not unmade:
        return []
    rows = (f"- `{each.recipe}` {each.outcome}: {each.reason} {each.advice}".rstrip() for each in unmade)
    return ["", "Not in this bundle:", "", *rows]


def _entry_line(entry: Entry, *, open_batch: bool) -> str:
    ending = ", raw pixels 0–255; the graph normalises by itself." if entry.is_image else "."
    if entry.span is not None:
        ending = f", values from {entry.span[0]:g} to {entry.span[1]:g}."
    rows = "1 (any number after resizing)" if open_batch else str(entry.shape[0])
    return f"Input `{entry.name}`: {entry.dtype} {'×'.join([rows, *map(str, entry.shape[1:])])}{ending}"


def _end_line(end: End, report: BundleReport) -> str:
    if end.name not in report.labels:
        named = (report.task or {}).get("output", {}).get("names")
        along = f", the last axis in the order of `{named}`" if named else ""
        return f"Output `{end.name}`: values {'×'.join(map(str, end.shape))}{along} (the model {_HEADS[end.head]})."
    order = label_file(end.name, len(report.serving.outputs))
    return f"Output `{end.name}`: {end.num_classes} classes in the order of `{order}` (the model {_HEADS[end.head]})."


def _row(variant: Variant) -> str:
    parity, suits = variant.parity, variant.suits
    return (
        f"| `{variant.recipe}` | {variant.bytes:,} | {variant.zipped_bytes:,} | {told(parity.accuracy, '.2%')}"
        f" | {points(parity.accuracy_diff)} | {told(parity.argmax_agreement, '.2%')} | {parity.max_abs_diff:.2g}"
        f" | {parity.mean_abs_diff:.2g} | {suits} |"
    )


def told(value: float | None, form: str) -> str:
    """Returns ``value`` as people read it; a dash where there is none, because the model has no classes.

    >>> told(0.5, ".1%"), told(None, ".1%")
    ('50.0%', '–')
    """
    return "–" if value is None else format(value, form)


def points(share: float | None) -> str:
    """Returns a difference of shares in points.

    >>> points(-0.0125), points(None)
    ('-1.25 pt', '–')
    """
    return "–" if share is None else f"{100 * share:+.2f} pt"
