"""What random layers draw while they train: a function of device, round, step and draw, never of a state.

Dropout draws the masks of the phone's program (`export.training.layers`). Every other layer draws through
``keras.random``, with a ``SeedGenerator`` of its own or, unseeded, with Keras' global one; both ask its ``next``, and
inside `keyed_draws` that answers from the task's seed. A whole number as seed stays what its author made it: the same
numbers every time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

_MOST_DRAWS = 4096
"""Of one step; what a step's draws are counted in."""

_now = threading.local()


@contextlib.contextmanager
def keyed_draws(model: Any, seed: Any, step: Any) -> Iterator[None]:
    """Lets a model that is called inside the block draw from ``seed`` and ``step`` alone.

    Args:
        model: A Keras model.
        seed: Scalar ``int32`` tensor ≥ 0, of one device in one round.
        step: Scalar ``int32`` tensor.
    """
    from export.training.layers import keyed_dropout

    _listen()
    before = getattr(_now, "draws", None)
    _now.draws = _Draws(seed, step)
    try:
        with keyed_dropout(model, seed, step):
            yield
    finally:
        _now.draws = before


class _Draws:
    """Seeds of one traced step, in the order its layers ask for them."""

    def __init__(self, seed: Any, step: Any) -> None:
        self._seed, self._step, self._count = seed, step, 0

    def next(self, dtype: str) -> Any:
        """Returns ``[2]``: what ``tf.random.stateless_*`` turns into a stream of its own."""
        import tensorflow as tf

        self._count += 1
        number = tf.bitwise.bitwise_and(self._step * _MOST_DRAWS + self._count, 0x7FFFFFFF)
        return tf.cast(tf.stack([self._seed, number]), dtype)


def _listen() -> None:
    """Makes every ``SeedGenerator`` answer from this thread's draws while there are any; done once a process.

    On the class, because a generator may be in a list, a closure or Keras' own global state, where nobody finds it.
    """
    import keras

    kind = keras.random.SeedGenerator
    if getattr(kind.next, "keyed", False):
        return
    original = kind.next

    def following(self: Any, ordered: bool = True) -> Any:
        draws = getattr(_now, "draws", None)
        return original(self, ordered) if draws is None else draws.next(str(self.state.dtype))

    following.keyed = True  # type: ignore[attr-defined]
    kind.next = following
