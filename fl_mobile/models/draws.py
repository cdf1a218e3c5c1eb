"""Who answers when a Keras layer asks for randomness: whoever traces it, so that no draw follows from a state.

Layers draw through ``keras.random``, with a ``SeedGenerator`` of their own or, unseeded, with Keras' global one; both
ask its ``next``. A whole number as seed stays what its author made it: the same numbers every time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

_now = threading.local()


@contextlib.contextmanager
def answered_draws(next_seed: Callable[[str], Any]) -> Iterator[None]:
    """Lets ``next_seed`` answer every ``SeedGenerator`` that this thread asks inside the block.

    Args:
        next_seed: dtype → a tensor ``[2]``, which ``tf.random.stateless_*`` turns into a stream of its own.
    """
    _listen()
    before = getattr(_now, "next_seed", None)
    _now.next_seed = next_seed
    try:
        yield
    finally:
        _now.next_seed = before


def _listen() -> None:
    """Makes every ``SeedGenerator`` ask this thread's `answered_draws` first; done once a process.

    On the class, because a generator may be in a list, a closure or Keras' own global state, where nobody finds it.
    """
    import keras

    kind = keras.random.SeedGenerator
    if getattr(kind.next, "answered", False):
        return
    original = kind.next

    def following(self: Any, ordered: bool = True) -> Any:
        next_seed = getattr(_now, "next_seed", None)
        return original(self, ordered) if next_seed is None else next_seed(str(self.state.dtype))

    following.answered = True  # type: ignore[attr-defined]
    kind.next = following
