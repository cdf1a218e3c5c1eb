"""Dropout masks that a phone and a computer draw alike, bit for bit, from integer operations every runtime has.

All arithmetic is on integers in [0, P) with P = 46337, the largest prime whose square fits int32, so nothing ever
overflows (no runtime's overflow rule matters) and only MUL, ADD, FLOOR_MOD and FLOOR_DIV are needed. The building
block is ``mix(h) = h³ mod P``, a permutation of [0, P) because 3 does not divide P − 1.

For the mask of layer ``l`` at training step ``t`` with seed ``s`` (both int32 ≥ 0), seen as ``rows × columns``
(rows = batch, columns = everything else), with ``%`` and ``//`` the floor operations:

```
k  = mix((s % P + 1) % P)             key: absorbs one number at a time,
k  = mix((k + s // P + 2) % P)        low and high part of s,
k  = mix((k + t % P + 3) % P)         of t,
k  = mix((k + t // P + 4) % P)
k  = mix((k + l % P + 5) % P)         and the layer
k2 = mix((k + 6) % P);  k3 = mix((k2 + 7) % P)
a_i = mix((mix((i % P + k) % P) + i // P) % P)             one number a row
b_j = mix((mix((j % P + k2) % P) + j // P + k3) % P)       one number a column
h_ij = mix((mix((a_i + b_j) % P) + k3) % P);  h_ij = mix((h_ij + a_i) % P)
keep_ij = h_ij ≥ round(rate · P)
```
The kept values are divided by ``1 − rate``. A step counts from 0 since the weights were set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PRIME = 46337


def threshold(rate: float) -> int:
    """Returns the smallest hash that keeps an element."""
    return round(rate * PRIME)


def dropout_mask(seed: int, step: int, layer_index: int, shape: Sequence[int], rate: float) -> np.ndarray:
    """Returns ``bool[shape]``, True where an element is kept.

    Args:
        seed: int32 ≥ 0.
        step: Training steps since the weights were set, from 0.
        layer_index: Which Dropout layer of the model, in model order, from 0.
        shape: Shape of the layer's input; the first axis is the batch.
        rate: Fraction that is dropped.

    >>> dropout_mask(7, 0, 0, (2, 5), 0.5).astype(int).tolist()
    [[0, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    """
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    i, j = np.arange(rows, dtype=np.int32)[:, None], np.arange(columns, dtype=np.int32)[None, :]
    return (_hash(np.int32(seed), np.int32(step), layer_index, i, j) >= threshold(rate)).reshape(shape)


def keep_tensor(seed: Any, step: Any, layer_index: int, shape: Sequence[Any], rate: float) -> Any:
    """Returns the same mask as ``float32[shape]`` of 0 and 1, from scalar ``int32`` tensors ``seed`` and ``step``.

    A pure function of its tensors: it may stand in a loop, and ``tf.vectorized_map`` may map it over seeds. The first
    axis of ``shape`` may be a scalar ``int32`` tensor, where the batch is not known while tracing; a short batch gets
    the first rows of a full one's mask.
    """
    import tensorflow as tf

    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    i = np.arange(rows, dtype=np.int32)[:, None] if isinstance(rows, int) else tf.range(rows)[:, None]
    j = np.arange(columns, dtype=np.int32)[None, :]
    hashed = _hash(
        tf.reshape(seed, [1, 1]), tf.reshape(step, [1, 1]), layer_index, tf.convert_to_tensor(i), tf.constant(j)
    )
    return tf.reshape(tf.cast(hashed >= threshold(rate), tf.float32), shape)


def _mix(h: Any) -> Any:
    return (h * h % PRIME) * h % PRIME


def _hash(seed: Any, step: Any, layer: int, row: Any, column: Any) -> Any:
    """The formula above; works on NumPy arrays and on tensors alike."""
    k = _mix((seed % PRIME + 1) % PRIME)
    for number, salt in ((seed // PRIME, 2), (step % PRIME, 3), (step // PRIME, 4), (layer % PRIME, 5)):
        k = _mix((k + number + salt) % PRIME)
    k2 = _mix((k + 6) % PRIME)
    k3 = _mix((k2 + 7) % PRIME)
    a = _mix((_mix((row % PRIME + k) % PRIME) + row // PRIME) % PRIME)
    b = _mix((_mix((column % PRIME + k2) % PRIME) + column // PRIME + k3) % PRIME)
    h = _mix((_mix((a + b) % PRIME) + k3) % PRIME)
    return _mix((h + a) % PRIME)
