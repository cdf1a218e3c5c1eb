"""``--recipe auto``: the smallest file that is still the Keras model, found by trying.

```
int8 ─▶ fails? its worst layers in float32, then in int16 ─▶ int16x8 ─▶ dynamic-int8 ─▶ float16 ─▶ float32
          1, 2, 4 … of them until one passes, then the least number that does
```
Which layers are worst, ``export.layers`` measures: by the noise that reaches the answer. Every candidate is judged by
the gates of its conversion, on all held-out frames. A recipe is converted once, mixes are cut together from finished
files, so a search is at most six conversions and ``MAX_CANDIDATES`` comparisons. It draws nothing by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from export.convert.recipes import AUTO, RECIPES, Recipe
from export.convert.to_tflite import needs_frames, unsuited
from export.layers import LayerReport, keep_in_float, keep_in_int16, ranked_layers
from export.layers.variant import with_kept
from export.report.report import make_variant
from export.tflite.graph import Graph
from export.variants.attempt import Attempt, Made, Origin, Request, attempt, layers_of
from export.variants.frontier import Candidate, Frontier, made_as
from export.variants.outcome import FAILED, SKIPPED, Unmade
from fl_mobile.errors import ExportError, VerifyError

# Beside them int16x8 needs no layers in int16, and of float16 nothing is kept in float: it is one already.
_MIXES: dict[str, tuple[str, ...]] = {
    "int8": ("float32", "int16"),
    "int8-legacy": ("float32",),
    "int16x8": ("float32",),
    "dynamic-int8": ("float32",),
}
_FOR_OLD_TARGETS = "int8-legacy"  # else it is int8 with one scale less
_ORDER = ("int8", _FOR_OLD_TARGETS, "int16x8", "dynamic-int8", "float16", "float32")
MAX_CANDIDATES = 24
_MAX_TRIES = 6  # of one kind of mix


@dataclass(frozen=True)
class Found:
    """What came out of a search: the artifact, None when none passed, and all that was seen."""

    made: Made | None
    frontier: Frontier


@dataclass(frozen=True)
class _Tried:
    candidate: Candidate
    attempt: Attempt
    recipe: Recipe


def search(request: Request, origin: Origin, say: Callable[[str], None]) -> Found:
    """Returns the smallest artifact that passes; of equal ones the one that was tried first.

    Args:
        request: What all candidates have in common; layers it keeps in float stay so in each.
        origin: The plain model.
        say: Told before each step.
    """
    run = _Search(request, origin, say)
    for name in _ORDER:
        if name != _FOR_OLD_TARGETS or request.targets:
            run.plain(RECIPES[name])
    passed = sorted((one for one in run.tried if one.candidate.passed), key=lambda one: one.candidate.bytes)
    return Found(run.made(passed), Frontier(tuple(one.candidate for one in run.tried), tuple(run.left_out)))


def nothing_passed(frontier: Frontier) -> Unmade:
    """Returns what is said when no candidate is the model: how many there were, and what came nearest."""
    if not frontier.candidates:
        return Unmade(AUTO.name, FAILED, f"nothing could be tried: {'; '.join(map(str, frontier.left_out))}")
    near = min(frontier.candidates, key=lambda one: (len(one.failures), one.mean_abs_diff))
    return Unmade(
        AUTO.name,
        FAILED,
        f"none of {len(frontier.candidates)} candidates is the Keras model; nearest came {near.name}"
        f" ({near.bytes:,} bytes): {'; '.join(near.failures)}.",
    )


class _Search:
    """Tries candidates and keeps them."""

    def __init__(self, request: Request, origin: Origin, say: Callable[[str], None]) -> None:
        self._request, self._origin, self._say = request, origin, say
        self.tried: list[_Tried] = []
        self.left_out: list[Unmade] = []
        self._layers: dict[str, LayerReport | None] = {}

    def plain(self, recipe: Recipe) -> None:
        """Tries ``recipe`` as it is, and where it fails with layers kept out of it."""
        if why := self._unsuited(recipe):
            self.left_out.append(Unmade(recipe.name, SKIPPED, why))
            return
        try:
            graph = self._origin.converted(recipe, self._request)
            kept = self._request.keep_float if recipe.weight_bits == 8 else ()
            passed = self._try(recipe, graph, tuple(kept), ())
        except (ExportError, VerifyError) as error:
            self.left_out.append(Unmade(recipe.name, FAILED, str(error)))
            return
        if not passed:
            for other in _MIXES.get(recipe.name, ()):
                self._mix(recipe, graph, other)

    def _unsuited(self, recipe: Recipe) -> str:
        if recipe.calibrated and self._request.calibration is None and not self._request.described.serving.control_flow:
            return needs_frames(recipe)
        return unsuited(self._request.described.serving, recipe)

    def _mix(self, recipe: Recipe, graph: Graph, other: str) -> None:
        """Keeps more and more of the worst layers in ``other``: doubles until it passes, then halves the step."""
        layers = [name for name in self._worst_layers(recipe, graph) if name not in self._request.keep_float]
        failed, passing, count = 0, len(layers) + 1, 1
        for _ in range(_MAX_TRIES):
            if passing - failed <= 1:
                return
            try:
                passed = self._try_kept(recipe, graph, layers[:count], other)
            except (ExportError, VerifyError) as error:
                self.left_out.append(Unmade(made_as(recipe.name, *_sides(layers[:count], other)), FAILED, str(error)))
                return
            failed, passing = (failed, count) if passed else (count, passing)
            halfway = (failed + passing) // 2
            count = min(2 * count, len(layers)) if passing > len(layers) else halfway

    def _try_kept(self, recipe: Recipe, graph: Graph, layers: Sequence[str], other: str) -> bool:
        twin = self._origin.twin(recipe)
        if other == "float32":
            mixed = keep_in_float(graph, twin, layers)
            return self._try(recipe, mixed, (*self._request.keep_float, *layers), ())
        wide = self._origin.converted(RECIPES["int16x8"], self._request)
        return self._try(
            recipe, keep_in_int16(graph, wide, twin, layers), tuple(self._request.keep_float), tuple(layers)
        )

    def _worst_layers(self, recipe: Recipe, graph: Graph) -> list[str]:
        if recipe.name not in self._layers:
            self._layers[recipe.name] = layers_of(recipe, self._origin, graph, self._request)
        report = self._layers[recipe.name]
        return [] if report is None else [name for name, share in ranked_layers(report.errors) if share > 0]

    def _try(self, recipe: Recipe, graph: Graph, kept_float: tuple[str, ...], kept_int16: tuple[str, ...]) -> bool:
        """Returns whether it passed; a file that is no smaller than one that passed is not worth comparing."""
        name = made_as(recipe.name, kept_float, kept_int16)
        smallest = min((one.candidate.bytes for one in self.tried if one.candidate.passed), default=None)
        mixed = kept_int16 or kept_float != tuple(self._request.keep_float)
        if len(self.tried) >= MAX_CANDIDATES:
            raise ExportError(f"not compared: {MAX_CANDIDATES} others were")
        if mixed and smallest is not None and graph.file_bytes >= smallest:
            raise ExportError(f"not compared: {graph.file_bytes:,} bytes, and a file of {smallest:,} bytes passed")
        self._say(f"{AUTO.name}: {name}")
        made = attempt(recipe, graph, self._request, made_as=f"{AUTO.name} ({name})")
        candidate = Candidate.of(recipe.name, made.parity, made.graph.file_bytes, (kept_float, kept_int16))
        candidate = replace(candidate, failures=(*made.refused, *candidate.failures))
        self.tried.append(_Tried(candidate, made, recipe))
        return candidate.passed

    def made(self, passed: Sequence[_Tried]) -> Made | None:
        """Returns the first of ``passed`` as it would be written, the others behind it; None when there is none."""
        if not passed:
            return None
        one, candidate, rows = passed[0], passed[0].candidate, self._request.golden_rows
        layers = layers_of(one.recipe, self._origin, one.attempt.graph, self._request)
        if layers is not None:
            layers = with_kept(layers, candidate.kept_float, candidate.kept_int16)
        variant = make_variant(AUTO, one.attempt.graph, replace(one.attempt.parity, recipe=AUTO.name), layers)
        variant = replace(variant, conversion=one.recipe.name, made_as=candidate.name)
        golden = {name: part[rows] for name, part in one.attempt.stored.items()}
        return Made(variant, one.attempt.graph, golden, second=lambda: self.made(passed[1:]))


def _sides(layers: Sequence[str], other: str) -> tuple[Sequence[str], Sequence[str]]:
    return (layers, ()) if other == "float32" else ((), layers)
