"""Tuned models as sources of artifacts: each tuning runs once, however many recipes convert its result.

Two comparisons guard a tuned artifact: with the tuned Keras model, at the tolerance of the plain conversion, that the
conversion is right; with the model before tuning, at the recipe's own tolerance, that tuning cost no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from export.convert.recipes import Recipe, find_recipe
from export.tuning.table import find_tuning
from export.tuning.tune import TuningReport, TuningSet, tune
from export.verify.measured import Reference, check_parity, make_reference, measure_parity
from export.verify.parity import Parity
from fl_mobile.errors import ExportError, VerifyError


@dataclass(frozen=True)
class TunedSource:
    """A tuned Keras model with its own answers on the held-out frames."""

    model: Any
    reference: Reference
    report: TuningReport


def tuned_sources(
    model: Any,
    rows: Sequence[Recipe],
    data: TuningSet | None,
    reference: Reference,
    say: Callable[[str], None],
) -> dict[str, TunedSource]:
    """Returns the tuned models that ``rows`` ask for, by tuning name, in order of first use.

    Raises:
        ExportError: A row needs tuning and ``data`` is None, or as ``tune``.
        VerifyError: As ``tune``.
    """
    sources: dict[str, TunedSource] = {}
    for recipe in rows:
        if not recipe.tuning or recipe.tuning in sources:
            continue
        if data is None:
            raise ExportError(
                f"recipe {recipe.name!r} trains the model further and needs a tuning set, got none. Give public or"
                f" server-side examples (TuningSet), or take {recipe.conversion!r}, which needs none."
            )
        dtypes = reference.serving.input_dtypes
        tuned = tune(model, find_tuning(recipe.tuning), data, input_dtype=dtypes, progress=say)
        own = make_reference(tuned.model, reference.frames, reference.labels, input_dtype=dtypes)
        sources[recipe.tuning] = TunedSource(tuned.model, own, tuned.report)
    return sources


def check_tuned_artifact(source: TunedSource, recipe: Recipe, data: bytes) -> Parity:
    """Returns the parity of the artifact ``data`` with the tuned model it was converted from.

    Raises:
        VerifyError: It is not that model.
    """
    conversion = replace(recipe, tolerance=find_recipe(recipe.conversion).tolerance)
    return check_parity(measure_parity(source.reference, conversion, data))


def check_kept(parity: Parity, recipe: Recipe) -> Parity:
    """Returns ``parity``, a tuned artifact against the model before tuning, when tuning cost little enough.

    Raises:
        VerifyError: It cost more than the recipe's tolerance.
    """
    try:
        return check_parity(parity)
    except VerifyError as error:
        raise VerifyError(
            f"tuning {recipe.tuning!r} cost too much: {error}. Give more tuning examples or epochs, or take"
            f" {recipe.conversion!r}."
        ) from error
