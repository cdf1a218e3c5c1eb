"""One artifact per recipe.

```
            ┌ float twin (once per model, where a recipe has 8-bit weights)
model ──────┤
            └ recipe ─▶ attempt: convert, layers kept in float, metadata, LiteRT on the held-out frames ─▶ parity
```
Tuned recipes start from a tuned copy of the model, made once per tuning; ``auto`` searches (``export.variants.auto``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from export.convert.recipes import AUTO, RECIPES, Recipe
from export.convert.saved import SavedModels, saved_models
from export.convert.to_tflite import unsuited
from export.layers import check_keep_float, layer_refused
from export.report.report import make_variant
from export.tuning.sources import check_kept, check_tuned_artifact, tuned_source
from export.tuning.tune import TuningReport
from export.variants.attempt import Made, Origin, Request, attempt, layers_of
from export.variants.auto import Found, nothing_passed, search
from export.variants.frontier import Frontier
from export.variants.outcome import FAILED, SKIPPED, Unmade, advice_for, advice_on_refusal
from export.verify.measured import check_parity
from fl_mobile.errors import ExportError, FlMobileError, VerifyError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcomes:
    """What became of every recipe, how tuned weights came about, and what a search tried."""

    made: Mapping[str, Made]
    unmade: tuple[Unmade, ...]
    tunings: tuple[TuningReport, ...]
    errors: Mapping[str, FlMobileError]
    frontier: Frontier | None


def make_variants(request: Request, recipes: Sequence[Recipe], saved: SavedModels, say: Say) -> Outcomes:
    """Tries every recipe and returns what became of each.

    Args:
        request: What they have in common.
        recipes: In order.
        saved: The model; tuned copies are converted where it is.
        say: Told before each step.

    Raises:
        ExportError: Layers that are to stay in float are not the model's.
    """
    made: dict[str, Made] = {}
    unmade: list[Unmade] = []
    errors: dict[str, FlMobileError] = {}
    frontier: Frontier | None = None
    with contextlib.ExitStack() as stack:
        origins = _Origins(request, saved, say, stack)
        if request.keep_float:
            eight_bits = [
                RECIPES["int8"] if row is AUTO else row for row in recipes if row is AUTO or row.weight_bits == 8
            ]
            twin = origins.plain.twin(max(eight_bits, key=lambda row: row.calibrated)) if eight_bits else None
            check_keep_float(request.keep_float, recipes, twin)
        for recipe in recipes:
            if why := unsuited(request.described.serving, recipe):
                say(f"{recipe.name}: skipped")
                unmade.append(Unmade(recipe.name, SKIPPED, why))
                continue
            try:
                if recipe is AUTO:
                    found = search(request, origins.plain, say)
                    frontier = found.frontier
                    made[recipe.name] = _passed(found)
                else:
                    made[recipe.name] = _make(recipe, origins.of(recipe), request, say)
            except _Unlike as error:
                unmade.append(Unmade(recipe.name, FAILED, str(error), error.advice))
                errors[recipe.name] = VerifyError(f"{error}{f'. {error.advice}' if error.advice else ''}")
            except (ExportError, VerifyError) as error:
                unmade.append(Unmade(recipe.name, FAILED, str(error)))
                errors[recipe.name] = error
        return Outcomes(made=made, unmade=tuple(unmade), tunings=origins.tunings, errors=errors, frontier=frontier)


class _Unlike(Exception):
    """An artifact is not the model; ``advice`` says what to try."""

    def __init__(self, error: VerifyError, advice: str) -> None:
        super().__init__(str(error))
        self.advice = advice


class _Origins:
    """The plain model and its tuned copies, each made once; a tuning that failed fails again for its next recipe."""

    def __init__(self, request: Request, saved: SavedModels, say: Say, stack: contextlib.ExitStack) -> None:
        self._request, self._convert, self._say, self._stack = request, saved.convert, say, stack
        self._tuned: dict[str, Origin | FlMobileError] = {}
        self.plain = Origin(saved, None)

    @property
    def tunings(self) -> tuple[TuningReport, ...]:
        """How the copies came about."""
        origins = [origin for origin in self._tuned.values() if isinstance(origin, Origin)]
        return tuple(origin.tuned.report for origin in origins if origin.tuned is not None)

    def of(self, recipe: Recipe) -> Origin:
        """Returns what ``recipe`` converts."""
        if not recipe.tuning:
            return self.plain
        if recipe.tuning not in self._tuned:
            self._tuned[recipe.tuning] = self._tune(recipe)
        found = self._tuned[recipe.tuning]
        if isinstance(found, FlMobileError):
            raise found
        return found

    def _tune(self, recipe: Recipe) -> Origin | FlMobileError:
        request = self._request
        try:
            source = tuned_source(
                found=request.described, recipe=recipe, data=request.tuning, reference=request.reference, say=self._say
            )
        except (ExportError, VerifyError) as error:
            return error
        saved = self._stack.enter_context(saved_models(source.described, self._convert))
        return Origin(saved, source)


def _passed(found: Found) -> Made:
    if found.made is None:
        why = nothing_passed(found.frontier)
        raise _Unlike(VerifyError(why.reason), why.advice)
    return found.made


def _make(recipe: Recipe, origin: Origin, request: Request, say: Say) -> Made:
    say(f"{recipe.name}: converting")
    graph = origin.converted(recipe, request)
    say(f"{recipe.name}: comparing with Keras on {request.reference.samples} frames")
    try:
        found = attempt(recipe, graph, request)
    except VerifyError as error:
        layer = layer_refused(origin.twin(recipe), graph, str(error))
        raise _Unlike(error, advice_on_refusal(recipe, layer)) from error
    if found.refused:
        raise VerifyError("; ".join(found.refused))
    layers, parity, rows = layers_of(recipe, origin, found.graph, request), found.parity, request.golden_rows
    try:
        if origin.tuned is not None:
            check_tuned_artifact(origin.tuned, recipe, found.graph, found.stored)
        parity = check_kept(parity, recipe) if recipe.tuning else check_parity(parity)
    except VerifyError as error:
        # What tuning cost is told with its own remedy.
        raise _Unlike(error, "" if recipe.tuning else advice_for(recipe, layers)) from error
    golden = {name: part[rows] for name, part in found.stored.items()}
    return Made(make_variant(recipe, found.graph, parity, layers), found.graph, golden)
