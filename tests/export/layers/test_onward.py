"""Noise carried by way of cuts is the noise carried straight, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.layers.error import _answers
from export.layers.onward import Onward, cuts
from export.layers.run import every_tensor

pytestmark = pytest.mark.tf


def net(outputs: int) -> Any:
    """A residual network whose blocks end in one tensor, and where there are two outputs one leaves in between."""
    from keras import Model, layers, utils

    utils.set_random_seed(0)
    frame = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(frame)
    side = None
    for _ in range(3):
        y = layers.Conv2D(4, 3, padding="same")(layers.Conv2D(4, 1, activation="relu")(x))
        x = layers.Add()([x, y])
        side = layers.Dense(2)(layers.GlobalAveragePooling2D()(x)) if side is None else side
    end = layers.Dense(3)(layers.Flatten()(x))
    return Model(frame, end if outputs == 1 else [end, side])


@pytest.mark.parametrize("longest", [100, 1])
@pytest.mark.parametrize("outputs", [1, 2])
def test_by_way_of_cuts_and_straight_are_the_same(outputs: int, longest: int, monkeypatch: Any) -> None:
    from export.convert.saved import saved_models
    from export.layers.names import FloatTwin, twin_of
    from export.model.serving import described

    with saved_models(described(net(outputs), "float32", classes=False)) as saved:
        twin: FloatTwin = twin_of(saved)
    monkeypatch.setattr("export.layers.onward._LONG", longest)  # one thread, and as many as there are cores
    exact, rng = twin.model, np.random.default_rng(0)
    frames = {"image": rng.standard_normal((3, 8, 8, 3)).astype(np.float32)}
    values, answers = every_tensor(twin.graph, exact, frames), _answers(exact)
    onward, straight = (Onward(exact, values, answers.values()) for _ in range(2))
    found = cuts(exact)
    assert sum(cut is not None for cut in found) >= 4
    assert any(cut is None for cut in found), "inside a block there is more than one tensor"
    for operator in exact.subgraphs[0].operators:
        out = int(operator.outputs[0])
        noise = rng.standard_normal(values[out].shape)
        disturbed = (values[out] + noise).astype(np.float32)
        one, other = onward.with_noise(out, noise), straight._straight(out, disturbed)
        assert one.keys() == other.keys()
        for answer in one:
            np.testing.assert_array_equal(one[answer], other[answer])
