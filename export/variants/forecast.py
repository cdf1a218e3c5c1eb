"""What export will refuse, found before anything is trained: seconds, not rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.convert.conversion import converter_for
from export.convert.recipes import AUTO, RECIPES, Recipe, asked_for
from export.convert.saved import SavedModels, saved_models
from export.convert.to_tflite import make_artifact, unsuited
from export.model.forms import InputForms
from export.model.frames import frames_for
from export.model.serving import Described, Frames, described
from export.tuning.bridge import check_bridged
from export.variants.outcome import FAILED, SKIPPED, Unmade, told_together
from fl_mobile.errors import ExportError

# Operations that TFLite has builtin kernels for, float and integer: a model of these alone is not tried before round 1.
# A model of these alone needs no trial; one with any other is really converted.
_CONVERTS = frozenset(
    [
        "Placeholder",
        "Const",
        "ReadVariableOp",
        "NoOp",
        "Identity",
        "IdentityN",
        "StopGradient",
        "Cast",
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "Pack",
        "Shape",
        "StridedSlice",
        "ConcatV2",
        "AddV2",
        "Add",
        "Sub",
        "Mul",
        "RealDiv",
        "Maximum",
        "Minimum",
        "Neg",
        "Rsqrt",
        "Square",
        "Sqrt",
        "BiasAdd",
        "MatMul",
        "Conv2D",
        "DepthwiseConv2dNative",
        "MaxPool",
        "AvgPool",
        "Mean",
        "Sum",
        "Pad",
        "Transpose",
        "Relu",
        "Relu6",
        "Sigmoid",
        "Tanh",
        "Softmax",
        "LeakyRelu",
        "FusedBatchNormV3",
        "ResourceGather",
        "GatherV2",
    ]
)


def check_exportable(
    model: Any,
    recipes: Sequence[str],
    *,
    examples: Any,
    input_dtype: InputForms = None,
    classes: bool = True,
    batch: int = 1,
) -> tuple[Unmade, ...]:
    """Returns the recipes no artifact can be made by, whatever the weights will be; the others may still lose accuracy.

    Args:
        model: A built Keras 3 model with any weights.
        recipes: Names of ``RECIPES`` or ``TUNED_RECIPES``.
        examples: A few of the examples that will calibrate, as ``frames_for`` takes them.
        input_dtype: See ``described``.
        classes: See ``described``.
        batch: See ``described``.

    Raises:
        ExportError: The model cannot be exported at all, or by none of ``recipes``.
        ConfigError: A recipe is not known.
    """
    rows = [asked_for(name) for name in recipes]
    found = described(model, input_dtype, classes=classes, batch=batch)
    frames = frames_for(found.serving, examples, "examples")
    unmade: dict[str, Unmade] = {}
    for recipe in rows:
        why = unsuited(found.serving, recipe) or (_untunable(model) if recipe.tuning else "")
        if why:
            unmade[recipe.name] = Unmade(recipe.name, SKIPPED, why)
    left = [recipe for recipe in rows if recipe.name not in unmade]
    if found.operations - _CONVERTS:
        unmade.update({each.recipe: each for each in _tried(found, left, frames)})
    if rows and len(unmade) == len(rows):
        raise ExportError(told_together(unmade.values()))
    return tuple(unmade.values())


def _untunable(model: Any) -> str:
    try:
        check_bridged(model)
    except ExportError as error:
        return str(error)
    return ""


def _tried(found: Described, recipes: Sequence[Recipe], frames: Frames) -> list[Unmade]:
    """Returns those of ``recipes`` whose conversion fails; for tuned ones and a search the plain one stands."""
    with converter_for(found.serving.parameters) as convert, saved_models(found, convert) as saved:
        plain = {r.name: RECIPES[r.conversion] if r.tuning or r is AUTO else r for r in recipes}
        trials = {row.name: _trial(saved, row, frames) for row in plain.values()}
    failed = [(recipe, trials[plain[recipe.name].name]) for recipe in recipes]
    return [Unmade(recipe.name, FAILED, why) for recipe, why in failed if why]


def _trial(saved: SavedModels, recipe: Recipe, frames: Frames) -> str:
    few = {name: np.asarray(part[:4]) for name, part in frames.items()}
    try:
        make_artifact(saved, recipe, few)
    except ExportError as error:
        return str(error)
    return ""
