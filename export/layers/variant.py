"""What a bundle's report says about the layers of one artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from export.convert.recipes import Recipe
from export.layers.error import LayerError, advice, layer_errors, worst_layer
from export.layers.names import FloatTwin, check_layers
from export.tflite.graph import Artifact
from fl_mobile.errors import ExportError, VerifyError


@dataclass(frozen=True)
class LayerReport:
    """The layers of one quantised artifact.

    Attributes:
        kept_float: Keras layers that were left in float32, on request or by a search.
        errors: Noise of every other operation that adds any, in execution order.
        not_measured: Why ``errors`` is empty though the artifact is quantised; else empty.
        kept_int16: Layers that a search left on 16-bit activations.
    """

    kept_float: tuple[str, ...]
    errors: tuple[LayerError, ...]
    not_measured: str = ""
    kept_int16: tuple[str, ...] = ()

    @property
    def worst(self) -> tuple[str, float] | None:
        """The layer whose noise reaches the answer most, with its share of all noise there; None when none is known."""
        return worst_layer(self.errors)

    @property
    def advice(self) -> str:
        """Which layer to keep in float first; empty when nothing was measured."""
        return advice(self.errors)

    def to_json(self) -> dict[str, Any]:
        """Returns the report in JSON types."""
        return {
            "kept_float": list(self.kept_float),
            "kept_int16": list(self.kept_int16),
            "errors": [asdict(error) for error in self.errors],
            "advice": self.advice,
            "not_measured": self.not_measured,
        }


def measure_layers(
    artifact: Artifact, twin: FloatTwin, frames: Mapping[str, np.ndarray], kept: Sequence[str]
) -> LayerReport:
    """Returns the report of ``artifact``; one that cannot be compared with its twin says why.

    Layers are told for people; what cannot be measured about them never costs the artifact.
    """
    try:
        return LayerReport(tuple(kept), layer_errors(artifact, twin, frames))
    except (VerifyError, RuntimeError, ValueError) as error:  # native code has errors of its own
        return LayerReport(tuple(kept), (), str(error))


def with_kept(report: LayerReport, kept_float: Sequence[str], kept_int16: Sequence[str]) -> LayerReport:
    """Returns ``report`` with the layers that are computed otherwise than its recipe says."""
    return replace(report, kept_float=tuple(kept_float), kept_int16=tuple(kept_int16))


def check_keep_float(layers: Sequence[str], recipes: Iterable[Recipe], twin: FloatTwin | None) -> None:
    """Refuses layers to keep in float that would change nothing.

    Raises:
        ExportError: No recipe quantises the arithmetic, or the model has no such layer.
    """
    if not layers:
        return
    if twin is None:
        raise ExportError(
            f"--keep-float {layers[0]} would change nothing: it takes layers out of recipes with 8-bit weights, and"
            f" none of {', '.join(recipe.name for recipe in recipes)} is one. Add --recipe int8."
        )
    check_layers(twin, layers)


def layer_lines(recipe: str, report: LayerReport) -> list[str]:
    """Returns the Markdown section of one artifact in ``report.md``."""
    head = ["", f"## Layers of `{recipe}`", ""]
    if report.kept_float:
        head += [f"Kept in float32: {', '.join(report.kept_float)}.", ""]
    if report.kept_int16:
        head += [f"On 16-bit activations: {', '.join(report.kept_int16)}.", ""]
    if report.not_measured:
        return [*head, f"Not measured: {report.not_measured}."]
    return [
        *head,
        "Signal to quantisation noise on the golden frames, in dB; larger is better. *Own*: what this operation adds,"
        " at its end. *At the answer*: the same noise when all else is float32. *So far*: all noise up to here.",
        "",
        "| layer | operation | own | at the answer | so far | share of the noise |",
        "|---|---|--:|--:|--:|--:|",
        *(
            f"| {error.layer or '–'} | {error.op} | {decibel(error.own_snr_db)} | {decibel(error.answer_snr_db)}"
            f" | {decibel(error.total_snr_db)} | {error.noise_share:.1%} |"
            for error in report.errors
        ),
        "",
        report.advice,
    ]


def decibel(ratio: float | None) -> str:
    """Returns a ratio as people read it.

    >>> decibel(43.21), decibel(None)
    ('43.2', 'exact')
    """
    return "exact" if ratio is None else f"{ratio:.1f}"
