"""What an export measured: one record per artifact, as JSON for programs and as a table for people.

No time is in it: how fast a host happened to be would make every bundle different, and ``fl-mobile benchmark``
measures that.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from export.bundle.folder import sha256
from export.convert.recipes import Recipe, find_recipe
from export.layers import LayerReport, layer_lines
from export.model.serving import SIGNATURE, End, Entry, Serving
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.tflite.graph import Graph
from export.tflite.metadata import label_file
from export.tuning.tune import TuningReport
from export.verify.parity import Parity

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "fl-mobile")
_HEADS = {
    "softmax": "ends in softmax; left alone",
    "sigmoid": "ends in sigmoid; left alone",
    "logits": "ends in logits; a softmax was added in the graph",
    "values": "ends in plain values; left alone",
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
    """

    recipe: str
    bytes: int
    zipped_bytes: int
    sha256: str
    graph: Graph
    parity: Parity
    layers: LayerReport | None = None

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
    """

    path: Path
    serving: Serving
    labels: Mapping[str, tuple[str, ...]]
    keras_accuracy: float
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


def make_variant(recipe: Recipe, data: bytes, graph: Graph, parity: Parity, layers: LayerReport | None) -> Variant:
    """Returns the record of the artifact ``data``."""
    zipped_bytes = len(zlib.compress(data, 9))
    return Variant(recipe.name, len(data), zipped_bytes, sha256(data), graph, parity, layers)


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
        "held_out": {
            "samples": report.samples,
            "sha256": report.held_out_sha256,
            "keras_accuracy": report.keras_accuracy,
        },
        "calibration": {"frames": report.calibration_frames, "sha256": report.calibration_sha256},
        "tunings": [tuning.to_json() for tuning in report.tunings],
        "variants": [_variant_json(variant) for variant in report.variants],
        "runtimes": {"replayed": list(report.runtimes), "missing": dict(report.missing_runtimes)},
        "training": asdict(report.training),
        "provenance": dict(report.provenance),
        "versions": dict(report.versions),
    }


def _variant_json(variant: Variant) -> dict[str, Any]:
    parity, recipe = variant.parity, find_recipe(variant.recipe)
    return {
        "recipe": variant.recipe,
        "suits": recipe.suits,
        "file": variant.file,
        "bytes": variant.bytes,
        "zipped_bytes": variant.zipped_bytes,
        "sha256": variant.sha256,
        "accuracy": parity.accuracy,
        "accuracy_diff": parity.accuracy - parity.keras_accuracy,
        "argmax_agreement": parity.argmax_agreement,
        "tie_flips": parity.tie_flips,
        "max_abs_diff": parity.max_abs_diff,
        "mean_abs_diff": parity.mean_abs_diff,
        "outputs": [asdict(end) for end in parity.outputs],
        "parity_runtime": parity.runtime,
        "tolerance": asdict(recipe.tolerance),
        "weights": variant.graph.weights,
        "ops": list(variant.graph.ops),
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
        *(_entry_line(entry) for entry in serving.inputs),
        *(_end_line(end, report) for end in serving.outputs),
        f"Keras: {report.keras_accuracy:.2%} of {report.samples} held-out frames,"
        f" {serving.parameters:,} parameters, weights `{serving.weights_sha256[:16]}…`.",
        "",
        "| recipe | bytes | zipped | accuracy | Δ Keras | same class | max Δp | mean Δp | for |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
        *(_row(variant) for variant in report.variants),
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


def _entry_line(entry: Entry) -> str:
    ending = ", raw pixels 0–255; the graph normalises by itself." if entry.is_image else "."
    return f"Input `{entry.name}`: {entry.dtype} {'×'.join(map(str, entry.shape))}{ending}"


def _end_line(end: End, report: BundleReport) -> str:
    if end.name not in report.labels:
        return f"Output `{end.name}`: values {'×'.join(map(str, end.shape))} (the model {_HEADS[end.head]})."
    order = label_file(end.name, len(report.serving.outputs))
    return f"Output `{end.name}`: {end.num_classes} classes in the order of `{order}` (the model {_HEADS[end.head]})."


def _row(variant: Variant) -> str:
    parity, suits = variant.parity, find_recipe(variant.recipe).suits
    diff_points = 100 * (parity.accuracy - parity.keras_accuracy)
    return (
        f"| `{variant.recipe}` | {variant.bytes:,} | {variant.zipped_bytes:,} | {parity.accuracy:.2%}"
        f" | {diff_points:+.2f} pt | {parity.argmax_agreement:.2%} | {parity.max_abs_diff:.2g}"
        f" | {parity.mean_abs_diff:.2g} | {suits} |"
    )
