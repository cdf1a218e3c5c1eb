"""Uniform, normal and whole numbers that a phone and a computer draw alike, from the hash of `dropout.py`.

With ``h`` the hash of seed, step, place and a draw's number (its ``l``), in [0, P):

```
uniform   u = (h + ½) / P                          never 0, never 1
normal    z = √(−2 ln u₁) · cos 2πu₂               Box and Muller (Ann. Math. Stat. 1958), from two hashes; |z| < 4.7
whole     low + (h₁·P + h₂) mod (high − low)       from two hashes
```
Draws are numbered behind the dropout masks, in the order in which a model asks for them in a training step; one of two
hashes takes two numbers. Uniform and whole numbers are equal bit for bit, normal ones as logarithms and cosines are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from export.training.dropout import PRIME, hash_tensor, hashes
from fl_mobile.models.draws import Answer, Draw

HASHES = {"uniform": 1, "normal": 2, "whole": 2}
"""`Draw.kind` → hashes an element."""

_SCALE, _HALF = np.float32(1 / PRIME), np.float32(0.5 / PRIME)

Make = Callable[[Draw, Sequence[int]], Any]


def numbered_draws(first: int, make: Make) -> Answer:
    """Returns an answer that numbers what it is asked.

    Args:
        first: Number of the first hash.
        make: Draw and the numbers of its hashes → its tensor.
    """
    numbers = count(first)

    def answer(draw: Draw) -> Any:
        return make(draw, [next(numbers) for _ in range(HASHES[draw.kind])])

    return answer


def drawn_array(draw: Draw, numbers: Sequence[int], seed: int, step: int) -> np.ndarray:
    """Returns a draw by NumPy; its shape and bounds must be known.

    Args:
        draw: What is asked for.
        numbers: Of its hashes.
        seed: int32 ≥ 0.
        step: Training steps since the weights were set, from 0.
    """
    h = [hashes(seed, step, n, [int(s) for s in np.asarray(draw.shape)]) for n in numbers]
    if draw.kind == "whole":
        low, high = int(np.asarray(draw.low)), int(np.asarray(draw.high))
        return np.asarray(low + (h[0] * PRIME + h[1]) % (high - low), draw.dtype.as_numpy_dtype)
    u = [one.astype(np.float32) * _SCALE + _HALF for one in h]
    if draw.kind == "normal":
        u = [np.sqrt(np.float32(-2) * np.log(u[0])) * np.cos(np.float32(2 * np.pi) * u[1])]
    return np.asarray(u[0], draw.dtype.as_numpy_dtype)


def drawn_tensor(draw: Draw, numbers: Sequence[int], key: Any) -> Any:
    """Returns the same as a tensor, from the `key_tensor` of seed and step."""
    import tensorflow as tf

    shape = _lengths(draw.shape)
    h = [hash_tensor(key, n, shape) for n in numbers]
    if draw.kind == "whole":
        low, high = (tf.cast(bound, tf.int32) for bound in (draw.low, draw.high))
        return tf.cast(low + (h[0] * PRIME + h[1]) % (high - low), draw.dtype)
    u = [tf.cast(one, tf.float32) * _SCALE + _HALF for one in h]
    if draw.kind == "normal":
        u = [tf.sqrt(-2.0 * tf.math.log(u[0])) * tf.cos(np.float32(2 * np.pi) * u[1])]
    return tf.cast(u[0], draw.dtype)


def _lengths(shape: Any) -> list[Any]:
    """Returns a shape's lengths: integers where they are known while tracing, else scalars."""
    import tensorflow as tf

    shape = tf.convert_to_tensor(shape, tf.int32)
    if (lengths := tf.get_static_value(shape)) is not None:
        return [int(n) for n in lengths]
    known = tf.fill(shape, False).shape.as_list()  # what shape inference can tell; the tensor itself is used by nobody
    return [shape[i] if n is None else n for i, n in enumerate(known)]
