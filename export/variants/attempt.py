"""One artifact of a recipe: converted from an origin, answered by LiteRT, compared with Keras. Nobody judges here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.bundles.phone_task import PhoneTask
from export.convert.recipes import Recipe
from export.convert.saved import SavedModels
from export.convert.to_tflite import make_artifact
from export.layers import FloatTwin, LayerReport, keep_in_float, measure_layers, twin_of
from export.model.frames import take
from export.model.serving import Described, Frames
from export.report.facts import TrainingFacts
from export.report.report import Variant
from export.runtimes import run_frames
from export.tflite.graph import Graph, read_graph
from export.tflite.metadata import About, with_metadata
from export.tuning.sources import TunedSource
from export.tuning.tune import TuningSet
from export.verify.golden import choose_frames
from export.verify.measured import Reference, check_any_rows, parity_of
from export.verify.parity import Parity
from export.verify.targets import refused_by


@dataclass(frozen=True)
class Request:
    """What is the same for every artifact of a bundle.

    Attributes:
        described: The Keras model.
        reference: Its answers on the held-out frames.
        calibration: Frames that calibrated recipes measure ranges on.
        keep_float: Keras layers that 8-bit recipes leave in float32.
        labels: Output name → class names.
        tuning: What tuned recipes train on.
        training: What is known about how the model came about.
        targets: What the artifacts are made for, see ``export.verify.targets``.
        phone: What an app has to know of the task; None where nobody said.
    """

    described: Described
    reference: Reference
    calibration: Frames | None
    keep_float: Sequence[str]
    labels: Mapping[str, tuple[str, ...]]
    tuning: TuningSet | None
    training: TrainingFacts
    targets: Sequence[str] = ()
    phone: PhoneTask | None = None

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Output name → names of what is along its last axis."""
        return {**({} if self.phone is None else self.phone.names_by_output(self.reference.serving)), **self.labels}

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """Declared ranges by input name."""
        return {entry.name: entry.span for entry in self.described.serving.inputs if entry.span is not None}

    @property
    def golden_rows(self) -> np.ndarray:
        """Indices of the held-out frames that a bundle keeps."""
        none = np.zeros(self.reference.samples, np.int64)  # of no classes all are alike: the first frames
        return choose_frames(next(iter(self.reference.labels.values()), none))


@dataclass(frozen=True)
class Made:
    """A recipe that passed.

    Attributes:
        variant: What was measured.
        graph: The file.
        golden: What LiteRT stored in its outputs on the golden frames, by output.
        second: Of a searched recipe what stands in when a runtime that decides refuses this one.
    """

    variant: Variant
    graph: Graph
    golden: Mapping[str, np.ndarray]
    second: Callable[[], Made | None] | None = None


class Origin:
    """What artifacts are converted from: a Keras model, and for a tuned one how it came about."""

    def __init__(self, saved: SavedModels, tuned: TunedSource | None) -> None:
        self.saved, self.tuned = saved, tuned
        self._twins: dict[bool, FloatTwin] = {}
        self._converted: dict[str, Graph] = {}

    def twin(self, recipe: Recipe) -> FloatTwin:
        """Returns the float32 artifact that one of ``recipe`` is compared with layer by layer; made when asked for."""
        calibrated = recipe.calibrated and self.saved.described.two_forms
        if calibrated not in self._twins:
            self._twins[calibrated] = twin_of(self.saved, calibrated=calibrated)
        return self._twins[calibrated]

    def converted(self, recipe: Recipe, request: Request) -> Graph:
        """Returns the artifact of ``recipe``, with the layers that stay in float; converted when first asked for.

        Raises:
            ExportError: The model cannot become one.
        """
        if recipe.name not in self._converted:
            self._converted[recipe.name] = self._convert(recipe, request)
        return self._converted[recipe.name]

    def _convert(self, recipe: Recipe, request: Request) -> Graph:
        if recipe.name == "float32":
            return self.twin(recipe).graph
        graph = make_artifact(self.saved, recipe, request.calibration)
        kept = request.keep_float
        return keep_in_float(graph, self.twin(recipe), kept) if kept and recipe.weight_bits == 8 else graph


@dataclass(frozen=True)
class Attempt:
    """An artifact as it would ship.

    Attributes:
        graph: The file, metadata and labels inside.
        stored: What LiteRT stored in its outputs on the held-out frames, by output.
        parity: How that compares with Keras.
        refused: What targets that are no runtime would refuse.
    """

    graph: Graph
    stored: Mapping[str, np.ndarray]
    parity: Parity
    refused: tuple[str, ...]


def attempt(recipe: Recipe, graph: Graph, request: Request, *, made_as: str = "") -> Attempt:
    """Returns ``graph`` with its metadata and what LiteRT answers; ``recipe`` has the tolerance it is measured by.

    Raises:
        VerifyError: LiteRT cannot run it, or with any number of rows where that is promised.
    """
    about = _about(made_as or recipe.name, request)
    tokens = {} if request.phone is None else request.phone.vocabularies(request.reference.serving)
    graph = read_graph(with_metadata(graph, about, request.named, request.spans, tokens))
    stored = run_frames("litert", graph, request.reference.frames)
    if request.described.serving.open_batch:
        check_any_rows(graph, request.reference.frames, stored, recipe.tolerance)
    parity = parity_of(request.reference, recipe, graph, stored)
    return Attempt(graph, stored, parity, tuple(refused_by(request.targets, graph)))


def layers_of(recipe: Recipe, origin: Origin, graph: Graph, request: Request) -> LayerReport | None:
    """Returns the noise of every layer, None of an artifact whose weights are floats."""
    if recipe.weight_bits != 8:
        return None
    return measure_layers(
        graph, origin.twin(recipe), take(request.reference.frames, request.golden_rows), request.keep_float
    )


def _about(recipe: str, request: Request) -> About:
    return About(
        name=request.training.model,
        description=f"Exported by fl-mobile with recipe {recipe}, compared with Keras on"
        f" {request.reference.samples} held-out examples. Model card and report are in its bundle.",
        version=request.reference.serving.weights_sha256[:16],
        license=request.training.license,
    )
