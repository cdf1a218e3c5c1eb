"""Who answers when a model draws random numbers: whoever runs it, so that no draw follows from a state.

Layers draw through ``keras.random``, with a ``SeedGenerator`` of their own or, unseeded, with Keras' global one; both
ask its ``next``. What they then draw, and what ``tf.random``, ``tf.nn`` and ``tf.image`` draw without a seed, goes
through a few kernels of TensorFlow. A whole number as seed stays what its author made it: the same numbers every time.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fl_mobile.models.private_api import drawing_kernels

_now = threading.local()
_listening = threading.Lock()


@dataclass(frozen=True)
class Draw:
    """What is asked for.

    Attributes:
        kind: ``uniform`` in [0, 1), ``normal`` of mean 0 and variance 1, or ``whole`` numbers.
        shape: Tensor or list.
        dtype: Of TensorFlow.
        low: Least whole number.
        high: First whole number above all.
    """

    kind: str
    shape: Any
    dtype: Any
    low: Any = None
    high: Any = None


Answer = Callable[[Draw], Any]
"""What is asked for → a tensor of that shape and dtype."""


@contextlib.contextmanager
def answered_draws(next_seed: Callable[[str], Any], answer: Answer | None = None) -> Iterator[None]:
    """Lets this thread's draws inside the block be answered.

    Args:
        next_seed: dtype → a tensor ``[2]`` for a ``SeedGenerator`` that is asked, which ``tf.random.stateless_*`` turns
            into a stream of its own.
        answer: Gives the numbers themselves, where they are uniform, normal or whole; without it TensorFlow draws them.
    """
    _listen()
    before = vars(_now).copy()
    _now.next_seed, _now.answer, _now.asked = next_seed, answer, False
    try:
        yield
    finally:
        vars(_now).clear()
        vars(_now).update(before)


def _listen() -> None:
    """Makes every ``SeedGenerator`` and every kernel ask this thread's `answered_draws` first; done once a process.

    On the class and the modules, because a generator may be in a list, a closure or Keras' own global state, where
    nobody finds it.
    """
    import keras

    kind = keras.random.SeedGenerator
    with _listening:
        if getattr(kind.next, "answered", False):
            return
        original = kind.next

        def following(self: Any, ordered: bool = True) -> Any:
            next_seed = getattr(_now, "next_seed", None)
            _now.asked = True
            return original(self, ordered) if next_seed is None else next_seed(str(self.state.dtype))

        for kernel in drawing_kernels():
            drawn = _answering(getattr(kernel.module, kernel.name), kernel.kind, seeded=kernel.seeded)
            setattr(kernel.module, kernel.name, drawn)
        following.answered = True  # type: ignore[attr-defined]
        kind.next = following


def _answering(original: Callable[..., Any], kind: str, *, seeded: bool) -> Callable[..., Any]:
    """Returns a kernel that asks first; with a seed only where a ``SeedGenerator`` has just been asked for it."""
    import tensorflow as tf

    parameters = inspect.signature(original)

    @functools.wraps(original)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        answer = getattr(_now, "answer", None)
        if answer is None or (seeded and not _now.asked):
            return original(*args, **kwargs)
        _now.asked = False
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        low, high = (given.arguments.get(name) for name in ("minval", "maxval"))
        dtype = tf.as_dtype(given.arguments["dtype"]) if low is None else tf.convert_to_tensor(low).dtype
        return answer(Draw(kind=kind, shape=given.arguments["shape"], dtype=dtype, low=low, high=high))

    return kernel
