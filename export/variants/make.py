"""One artifact per recipe.

```
            ┌ float twin (once per model, where a recipe has 8-bit weights)
model ──────┤
            └ recipe ─▶ make_artifact ─▶ layers kept in float ─▶ metadata ─▶ LiteRT on the held-out frames ─▶ parity
```
Tuned recipes start from a tuned copy of the model, made once per tuning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.convert.conversion import Converter
from export.convert.recipes import Recipe
from export.convert.saved import SavedModels, saved_models
from export.convert.to_tflite import make_artifact, unsuited
from export.layers import FloatTwin, LayerReport, check_keep_float, keep_in_float, measure_layers, twin_of
from export.model.frames import take
from export.model.serving import Described, Frames
from export.report.facts import TrainingFacts
from export.report.report import Variant, make_variant
from export.runtimes import run_frames
from export.tflite.graph import Graph, read_graph
from export.tflite.metadata import About, with_metadata
from export.tuning.sources import TunedSource, check_kept, check_tuned_artifact, tuned_source
from export.tuning.tune import TuningReport, TuningSet
from export.variants.outcome import FAILED, SKIPPED, Unmade, advice_for
from export.verify.golden import choose_frames
from export.verify.measured import Reference, check_parity, parity_of
from fl_mobile.errors import ExportError, FlMobileError, VerifyError

Say = Callable[[str], None]


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
    """

    described: Described
    reference: Reference
    calibration: Frames | None
    keep_float: Sequence[str]
    labels: Mapping[str, tuple[str, ...]]
    tuning: TuningSet | None
    training: TrainingFacts

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
    """A recipe that passed, with what LiteRT stored in its outputs on the golden frames."""

    variant: Variant
    graph: Graph
    golden: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Outcomes:
    """What became of every recipe, and how tuned weights came about."""

    made: Mapping[str, Made]
    unmade: tuple[Unmade, ...]
    tunings: tuple[TuningReport, ...]
    errors: Mapping[str, FlMobileError]


def make_variants(request: Request, recipes: Sequence[Recipe], convert: Converter, say: Say) -> Outcomes:
    """Tries every recipe and returns what became of each.

    Args:
        request: What they have in common.
        recipes: In order.
        convert: Where conversions run.
        say: Told before each step.

    Raises:
        ExportError: Layers that are to stay in float are not the model's.
    """
    made: dict[str, Made] = {}
    unmade: list[Unmade] = []
    errors: dict[str, FlMobileError] = {}
    with contextlib.ExitStack() as stack:
        origins = _Origins(request, convert, say, stack)
        if request.keep_float:
            eight_bits = any(recipe.weight_bits == 8 for recipe in recipes)
            check_keep_float(request.keep_float, recipes, origins.plain.twin if eight_bits else None)
        for recipe in recipes:
            if why := unsuited(request.described.serving, recipe):
                say(f"{recipe.name}: skipped")
                unmade.append(Unmade(recipe.name, SKIPPED, why))
                continue
            try:
                made[recipe.name] = _make(recipe, origins.of(recipe), request, say)
            except _Unlike as error:
                unmade.append(Unmade(recipe.name, FAILED, str(error), error.advice))
                errors[recipe.name] = VerifyError(f"{error}{f'. {error.advice}' if error.advice else ''}")
            except (ExportError, VerifyError) as error:
                unmade.append(Unmade(recipe.name, FAILED, str(error)))
                errors[recipe.name] = error
        return Outcomes(made, tuple(unmade), origins.tunings, errors)


class _Unlike(Exception):
    """An artifact is not the model; ``advice`` says what to try."""

    def __init__(self, error: VerifyError, advice: str) -> None:
        super().__init__(str(error))
        self.advice = advice


class _Origin:
    """What artifacts are converted from: a Keras model, and for a tuned one how it came about."""

    def __init__(self, saved: SavedModels, tuned: TunedSource | None) -> None:
        self.saved, self.tuned = saved, tuned
        self._twin: FloatTwin | None = None

    @property
    def twin(self) -> FloatTwin:
        """The float32 artifact, which quantised ones are compared with layer by layer; made when first asked for."""
        if self._twin is None:
            self._twin = twin_of(self.saved)
        return self._twin


class _Origins:
    """The plain model and its tuned copies, each made once; a tuning that failed fails again for its next recipe."""

    def __init__(self, request: Request, convert: Converter, say: Say, stack: contextlib.ExitStack) -> None:
        self._request, self._convert, self._say, self._stack = request, convert, say, stack
        self._tuned: dict[str, _Origin | FlMobileError] = {}
        self.plain = _Origin(stack.enter_context(saved_models(request.described, convert)), None)

    @property
    def tunings(self) -> tuple[TuningReport, ...]:
        """How the copies came about."""
        origins = [origin for origin in self._tuned.values() if isinstance(origin, _Origin)]
        return tuple(origin.tuned.report for origin in origins if origin.tuned is not None)

    def of(self, recipe: Recipe) -> _Origin:
        """Returns what ``recipe`` converts."""
        if not recipe.tuning:
            return self.plain
        if recipe.tuning not in self._tuned:
            self._tuned[recipe.tuning] = self._tune(recipe)
        found = self._tuned[recipe.tuning]
        if isinstance(found, FlMobileError):
            raise found
        return found

    def _tune(self, recipe: Recipe) -> _Origin | FlMobileError:
        request = self._request
        try:
            source = tuned_source(request.described, recipe, request.tuning, request.reference, self._say)
        except (ExportError, VerifyError) as error:
            return error
        saved = self._stack.enter_context(saved_models(source.described, self._convert))
        return _Origin(saved, source)


def _make(recipe: Recipe, origin: _Origin, request: Request, say: Say) -> Made:
    say(f"{recipe.name}: converting")
    graph = _with_layers_kept(_converted(recipe, origin, request), recipe, origin, request.keep_float)
    graph = read_graph(with_metadata(graph, _about(recipe, request), request.labels, request.spans))
    reference, rows = request.reference, request.golden_rows
    say(f"{recipe.name}: comparing with Keras on {reference.samples} frames")
    stored = run_frames("litert", graph, reference.frames)
    parity = parity_of(reference, recipe, graph, stored)
    layers = _layers(recipe, origin, graph, request)
    try:
        if origin.tuned is not None:
            check_tuned_artifact(origin.tuned, recipe, graph, stored)
        parity = check_kept(parity, recipe) if recipe.tuning else check_parity(parity)
    except VerifyError as error:
        # What tuning cost is told with its own remedy.
        raise _Unlike(error, "" if recipe.tuning else advice_for(recipe, layers)) from error
    return Made(make_variant(recipe, graph, parity, layers), graph, {name: part[rows] for name, part in stored.items()})


def _converted(recipe: Recipe, origin: _Origin, request: Request) -> Graph:
    if recipe.name == "float32":
        return origin.twin.graph
    return make_artifact(origin.saved, recipe, request.calibration)


def _with_layers_kept(graph: Graph, recipe: Recipe, origin: _Origin, layers: Sequence[str]) -> Graph:
    return keep_in_float(graph, origin.twin, layers) if layers and recipe.weight_bits == 8 else graph


def _layers(recipe: Recipe, origin: _Origin, graph: Graph, request: Request) -> LayerReport | None:
    if recipe.weight_bits != 8:
        return None
    return measure_layers(graph, origin.twin, take(request.reference.frames, request.golden_rows), request.keep_float)


def _about(recipe: Recipe, request: Request) -> About:
    return About(
        name=request.training.model,
        description=f"Exported by fl-mobile with recipe {recipe.name}, compared with Keras on"
        f" {request.reference.samples} held-out examples. Model card and report are in its bundle.",
        version=request.reference.serving.weights_sha256[:16],
        license=request.training.license,
    )
