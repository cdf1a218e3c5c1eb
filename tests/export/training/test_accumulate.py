"""Gradient accumulation: a batch that does not fit the phone, in pieces that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.training import open_session
from export.training.program import build_training_program
from fl_mobile.errors import VerifyError
from fl_mobile.local import OPTIMIZERS
from fl_mobile.models import keras_bridge
from tests.export.training.test_program import BATCH, L, _data, _model

pytestmark = pytest.mark.tf


@pytest.mark.sample(r"adam")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulated_batches_are_one_large_batch(optimizer: str) -> None:
    """Every example counts the same, in uneven batches too; the proximal term, correction and clipping come once."""
    rate = 1e-3 if optimizer == "adam" else 0.05  # Adam divides by gradients that may be all rounding
    model, options = _model(), {"optimizer": optimizer, "proximal": True, "correction": True, "clip_norm": 0.5}
    start = keras_bridge.read(model)
    correction = {path: np.full_like(value, 0.01) for path, value in start.items()}
    large, small = (
        open_session(made.tflite, made.contract)
        for made in (
            build_training_program(model, batch_size=3 * BATCH, **options),
            build_training_program(model, batch_size=BATCH, accumulate=True, **options),
        )
    )
    x, y = _data(3 * BATCH)
    x, y = x[:-1], y[:-1]
    for session in (large, small):
        session.set_weights(start)
        session.set_correction(correction)
    for _ in range(3):
        loss, _ = large.train(x, y, learning_rate=rate, prox_mu=0.3)
        parts = [small.accumulate(x[at : at + BATCH], y[at : at + BATCH])[0] for at in range(0, len(x), BATCH)]
        assert np.average(parts, weights=[BATCH, BATCH, BATCH - 1]) == pytest.approx(loss, rel=1e-5)
        assert small.apply(learning_rate=rate, prox_mu=0.3) == 3 * BATCH - 1
    want = large.get_weights()
    for path, value in small.get_weights().items():
        np.testing.assert_allclose(value, want[path], atol=1e-6, err_msg=path)


def test_accumulated_gradients_do_not_outlive_set_weights_and_train_goes_between() -> None:
    model = _model(L.Dropout(0.3))
    made = build_training_program(model, batch_size=BATCH, optimizer="adam", accumulate=True)
    session, start = open_session(made.tflite, made.contract), keras_bridge.read(model)
    plain = _session_of(model, "adam")
    session.set_weights(start)
    session.accumulate(*_data(), seed=4)
    for one in (session, plain):
        one.set_weights(start)
        assert one.train(*_data(), learning_rate=0.01, seed=5)[0] > 0
    for path, value in session.get_weights().items():
        np.testing.assert_array_equal(value, plain.get_weights()[path])
    first, second = (session.accumulate(*_data(), seed=4)[0] for _ in range(2))
    assert first != second, "each batch has dropout masks of its own"
    with pytest.raises(VerifyError, match="accumulate"):
        plain.accumulate(*_data())


def _session_of(model: Any, optimizer: str) -> Any:
    made = build_training_program(model, batch_size=BATCH, optimizer=optimizer)
    return open_session(made.tflite, made.contract)
