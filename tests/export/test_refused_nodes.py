"""An operation that a runtime has no kernel for: its layer is named, and kept in float the recipe works."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.convert.recipes import RECIPES
from export.convert.saved import saved_models
from export.model.serving import described
from export.report.facts import NOTHING_KNOWN
from export.variants.attempt import Request
from export.variants.make import Outcomes, make_variants
from export.verify.measured import reference_of

pytestmark = pytest.mark.tf
X = np.random.default_rng(0).standard_normal((40, 8, 6)).astype(np.float32)


def outcome(model: Any, keep_float: tuple[str, ...]) -> Outcomes:
    found = described(model, classes=False)
    frames = {found.serving.entry.name: X}
    reference = reference_of(found, frames, None)
    request = Request(found, reference, frames, keep_float, {}, None, NOTHING_KNOWN)
    with saved_models(found) as saved:
        return make_variants(request, [RECIPES["int16x8"]], saved, lambda _: None)


def test_the_layer_is_named_and_kept_in_float_it_works() -> None:
    from keras import Sequential, layers, utils

    utils.set_random_seed(0)
    norm = layers.LayerNormalization(name="norm")
    model = Sequential([layers.Input((8, 6)), layers.Dense(6), norm, layers.Flatten(), layers.Dense(3)])
    refused = outcome(model, ())
    (told,) = refused.unmade
    assert "SQUARED_DIFFERENCE" in told.reason
    assert told.advice == "That is layer 'norm': try --keep-float norm, or recipe 'dynamic-int8'."
    assert not outcome(model, ("norm",)).unmade
