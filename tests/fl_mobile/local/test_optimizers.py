"""Every local optimizer against the Keras optimizer it names."""

from __future__ import annotations

import numpy as np
import pytest

from fl_mobile.errors import ConfigError
from fl_mobile.local.optimizers import OPTIMIZERS, local_optimizer
from fl_mobile.records import FitPlan


@pytest.mark.tf
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_are_those_of_keras(name: str) -> None:
    import keras
    import tensorflow as tf

    row, rng = OPTIMIZERS[name], np.random.default_rng(0)
    variable = keras.Variable(rng.standard_normal((4, 3)), dtype="float32")
    theirs, w = row.keras(0.05, 0.8), tf.convert_to_tensor(variable)
    slots = [tf.zeros_like(w) for _ in row.slots]
    for done in range(5):
        g = tf.constant(rng.standard_normal((4, 3)), tf.float32)
        theirs.apply([g], [variable])
        w, slots = row.step(w, g, slots, tf.constant(0.05), tf.constant(float(done)), 0.8)
    np.testing.assert_allclose(w, variable.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_counted_as_far_as_they_carry(name: str) -> None:
    """Under a constant gradient SGD moves one rate a step; what is not normalised moves ``sgd_steps`` rates."""
    row = OPTIMIZERS[name]
    assert row.sgd_steps(1, 0.9) == 1
    if name == "adam":
        return
    w, slots = 0.0, [0.0 for _ in row.slots]
    for done in range(6):
        w, slots = row.step(w, 1.0, slots, 0.1, float(done), 0.9)
    assert -w / 0.1 == pytest.approx(row.sgd_steps(6, 0.9))
    assert FitPlan(epochs=6, batch_size=0, optimizer=name).local_steps(50) == row.sgd_steps(6, 0.9)


def test_an_unknown_optimizer_is_refused_everywhere_and_never_sgd() -> None:
    for ask in (local_optimizer, lambda name: FitPlan(optimizer=name)):
        with pytest.raises(ConfigError, match=r"unknown optimizer 'adamm'\. Did you mean 'adam'"):
            ask("adamm")
