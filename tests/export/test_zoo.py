"""The zoo × recipes: each file answers as Keras does within its recipe's bound, or the recipe says by name why not."""

from __future__ import annotations

import re

import pytest

from export.convert.conversion import converter_for
from export.convert.recipes import find_recipe
from export.convert.saved import saved_models
from export.model.serving import described
from export.report.facts import NOTHING_KNOWN
from export.training.program import build_training_program
from export.variants.attempt import Made, Request
from export.variants.make import make_variants
from export.variants.outcome import Unmade
from export.verify.measured import reference_of
from fl_mobile.errors import FlMobileError
from tests.export.zoo.build import frames_of
from tests.export.zoo.table import KINDS, built

pytestmark = pytest.mark.tf

RECIPES = ("float32", "float16", "dynamic-int8", "int8", "int16x8")
_TOKENS = "int16 activations cannot be calibrated beside int32 inputs such as tokens"
_NO_INT16 = r"runtime 'litert' (refuses the artifact|fails on frame 0): .*\((GREATER|SQUARED_DIFFERENCE)\) failed to"
_STRAYS = "is not the Keras model"
_EMPTY = r"of a frame of the least values: .* \(DIV\) failed to invoke"  # a text without a word: by no words, in 8 bits
TOLD: dict[tuple[str, str], str] = {
    **dict.fromkeys([("pool3d", recipe) for recipe in RECIPES], r"AvgPool3D, MaxPool3D \(layer 'average_pooling3d'"),
    **dict.fromkeys([("own-argmax", recipe) for recipe in RECIPES], r"BitwiseAnd \(layer 'own'\) has no TFLite"),
    **{(kind, "int16x8"): _TOKENS for kind in ("embedding", "embedding-masked", "next-word", "lstm-of-masked-tokens")},
    **{
        (kind, "int16x8"): _NO_INT16
        for kind in ("activation-layers", "activations-smooth", "layer-norm", "transformer", "own-reductions")
    },
    ("embedding-masked", "int8"): _EMPTY,
    # Keras masks scores with -1e9, which leaves one of 65,536 levels to all the others.
    ("causal-attention", "int16x8"): _STRAYS,
    ("unit-and-rms-norm", "int16x8"): _STRAYS,
    ("own-choices", "int16x8"): _STRAYS,
    # Random weights through 28 layers: the runtime's own words for a scale that overflows, and noise.
    **{(kind, "int16x8"): r"no_integer_overflow_from_quantization" for kind in ("mobilenet", "mobilenet-v2")},
    **{(kind, "int8"): _STRAYS for kind in ("mobilenet", "mobilenet-v2")},
}
"""(kind, recipe) → what is said instead of an artifact. All other pairs are made."""
COVER = (
    *("own-arithmetic", "embedding-masked", "own-slices", "own-reductions", "activation-layers", "conv-lstm"),
    *("transformer", "pooling", "own-cumulative", "conv3d", "transposed1d", "own-resize", "separable1d"),
    *("transposed3d", "activations-hard", "lstm", "outputs-of-every-rank", "pool3d"),
)
"""Few kinds that together hold every operation of the zoo (some 60 CPU seconds); the others are slow."""


def outcomes(kind: str, recipes: tuple[str, ...]) -> tuple[dict[str, Made], tuple[Unmade, ...]]:
    """Returns what became of every recipe, as ``export_model`` makes them."""
    found = described(built(kind), classes=False)
    request = Request(
        described=found,
        reference=reference_of(found, frames_of(found.serving, 48), None),
        calibration=frames_of(found.serving, 32, seed=1),
        keep_float=(),
        labels={},
        tuning=None,
        training=NOTHING_KNOWN,
    )
    with converter_for(found.serving.parameters) as convert, saved_models(found, convert) as saved:
        made = make_variants(request, [find_recipe(name) for name in recipes], saved, lambda _: None)
    return dict(made.made), made.unmade


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in COVER else pytest.mark.slow) for kind in KINDS]
)
def test_every_file_is_the_model_or_the_recipe_says_why_there_is_none(kind: str) -> None:
    made, unmade = outcomes(kind, RECIPES)
    wanted = {recipe: words for (of, recipe), words in TOLD.items() if of == kind}
    assert {each.recipe for each in unmade} == wanted.keys(), [str(each) for each in unmade]
    assert made.keys() == set(RECIPES) - wanted.keys()
    for each in unmade:
        assert re.search(wanted[each.recipe], each.reason), each.reason
        assert "\n" not in each.reason


def refused(kind: str) -> str:
    """Returns why a kind has no training program, empty when it has one."""
    try:
        build_training_program(built(kind), batch_size=4, loss="mse", from_logits=False)
    except FlMobileError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_as_keras_trains_it_or_is_refused_by_name(kind: str) -> None:
    """``build_training_program`` holds the program against Keras; what it cannot do it must say in one line."""
    refusal = refused(kind)
    assert "\n" not in refusal
    assert not refusal or "'" in refusal, f"names nothing: {refusal}"
