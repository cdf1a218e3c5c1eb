"""Tuned models as sources of artifacts: each tuning runs once, however many recipes convert its result.

Two comparisons guard a tuned artifact: with the tuned Keras model, at the tolerance of the plain conversion, that the
conversion is right; with the model before tuning, at the recipe's own tolerance, that tuning cost no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from export.convert.recipes import Recipe, find_recipe
from export.model.serving import Described, described
from export.tflite.graph import Graph
from export.tuning.table import find_tuning
from export.tuning.tune import TuningReport, TuningSet, tune_described
from export.verify.measured import Reference, check_parity, parity_of, reference_of
from export.verify.parity import Parity
from fl_mobile.errors import ExportError, VerifyError


@dataclass(frozen=True)
class TunedSource:
    """A tuned Keras model with its own answers on the held-out frames."""

    described: Described
    reference: Reference
    report: TuningReport


def tuned_source(
    found: Described, recipe: Recipe, data: TuningSet | None, reference: Reference, say: Callable[[str], None]
) -> TunedSource:
    """Returns the tuned model that ``recipe`` converts.

    Raises:
        ExportError: ``data`` is None, or as ``tune``.
        VerifyError: As ``tune``.
    """
    if data is None:
        raise ExportError(needs_tuning_set(recipe))
    tuned = tune_described(found, find_tuning(recipe.tuning), data, say)
    own = described(tuned.model, found.serving.input_dtypes)
    return TunedSource(own, reference_of(own, reference.frames, reference.labels), tuned.report)


def needs_tuning_set(recipe: Recipe) -> str:
    """Returns the message for a tuned recipe without examples to tune on."""
    return (
        f"recipe {recipe.name!r} trains the model further and needs a tuning set, got none. Give public or"
        f" server-side examples (TuningSet), or take {recipe.conversion!r}, which needs none."
    )


def check_tuned_artifact(source: TunedSource, recipe: Recipe, graph: Graph, stored: Mapping[str, np.ndarray]) -> Parity:
    """Returns the parity of an artifact with the tuned model it was converted from.

    Args:
        source: That model.
        recipe: The tuned recipe.
        graph: The artifact.
        stored: Its rows on the held-out frames, by output.

    Raises:
        VerifyError: It is not that model.
    """
    conversion = replace(recipe, tolerance=find_recipe(recipe.conversion).tolerance)
    return check_parity(parity_of(source.reference, conversion, graph, stored))


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
