"""What random layers draw while they train: a function of device, round, step and draw, never of a state.

Dropout draws the masks of the training program (`export.training.dropout`), every other layer its numbers
(`export.training.draws`); what phones cannot draw comes from TensorFlow, by a keyed seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count
from typing import Any

from fl_mobile.models.draws import answered_draws

_MOST_DRAWS = 4096
"""Of one step; what a step's draws are counted in."""


@contextlib.contextmanager
def keyed_draws(model: Any, seed: Any, step: Any) -> Iterator[None]:
    """Lets a model that is called inside the block draw from ``seed`` and ``step`` alone.

    Args:
        model: A Keras model.
        seed: Scalar ``int32`` tensor ≥ 0, of one device in one round.
        step: Scalar ``int32`` tensor.
    """
    import tensorflow as tf

    from export.training.layers import device_draws, keyed_dropout

    numbers = count(1)

    def next_seed(dtype: str) -> Any:
        number = tf.bitwise.bitwise_and(step * _MOST_DRAWS + next(numbers), 0x7FFFFFFF)
        return tf.cast(tf.stack([seed, number]), dtype)

    with answered_draws(next_seed, device_draws(model, seed, step)), keyed_dropout(model, seed, step):
        yield
