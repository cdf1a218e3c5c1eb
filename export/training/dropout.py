"""Dropout masks that a phone and a computer draw alike, bit for bit, from integer operations every runtime has.

`draws.py` makes the numbers of other random layers from the same hash.

All arithmetic is on integers below 2P with P = 23159: every product is below 2³¹, no runtime's overflow rule matters,
and only MUL, ADD, FLOOR_MOD and FLOOR_DIV are needed. The building block is ``mix(t) = t³ mod P`` for 0 ≤ t < 2P, a
permutation of [0, P) because 3 does not divide P − 1.

For the mask of layer ``l`` at training step ``t`` with seed ``s`` (both int32 ≥ 0), seen as ``rows × columns``
(rows = batch, columns = everything else), with ``%`` and ``//`` the floor operations:

```
k = mix((s % P + 1) % P)                 key: absorbs one number at a time,
k = mix(k + (n + salt) % P)              for n, salt = s // P, 2;  s // P², 3;  t % P, 4;  t // P, 5;  t // P², 6;  l, 7
k2 = mix((k + 8) % P);  k3 = mix((k2 + 9) % P)
a_i = mix(mix(i % P + k) + i // P)                         one number a row
b_j = mix(mix(j % P + k2) + j // P)                        two numbers a column: columns may be many more than P
c_j = mix(mix(j % P + k3) + j // P)
h_ij = mix(mix(a_i + b_j) + c_j)                           four divisions an element
keep_ij = h_ij ≥ round(rate · P)
```
The kept values are divided by ``1 − rate``. A step counts from 0 since the weights were set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PRIME = 23159


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
    [[0, 0, 0, 0, 1], [1, 0, 1, 1, 1]]
    """
    return hashes(seed, step, layer_index, shape) >= threshold(rate)


def keep_tensor(key: Any, layer_index: int, shape: Sequence[Any], rate: float) -> Any:
    """Returns the same mask as ``float32[shape]`` of 0 and 1; arguments as of `hash_tensor`."""
    import tensorflow as tf

    return tf.cast(hash_tensor(key, layer_index, shape) >= threshold(rate), tf.float32)


def keys_of(seed: Any, step: Any) -> Callable[[], Any]:
    """Returns what gives the key of all masks of a step, made once in every graph that asks: half of a hash's work.

    Args:
        seed: Scalar ``int32`` tensor ≥ 0.
        step: Scalar ``int32`` tensor.
    """
    import tensorflow as tf

    made: dict[int, tuple[Any, Any]] = {}

    def key() -> Any:
        graph = tf.compat.v1.get_default_graph()
        if id(graph) not in made:  # a tensor of a loop's body is nothing outside of it
            made[id(graph)] = graph, key_tensor(seed, step)
        return made[id(graph)][1]

    return key


def key_tensor(seed: Any, step: Any) -> Any:
    """Returns the key of a step, ``int32[1, 1]``, before it absorbs the number of a mask; arguments as of `keys_of`."""
    import tensorflow as tf

    return _key(tf.reshape(seed, [1, 1]), tf.reshape(step, [1, 1]), tf.constant(PRIME))


def hashes(seed: int, step: int, number: int, shape: Sequence[int]) -> np.ndarray:
    """Returns ``int32[shape]`` in [0, P), by the formula above; ``number`` is its ``l``."""
    rows, columns = (shape[0] if shape else 1), int(np.prod(shape[1:], dtype=np.int64))
    i, j = np.arange(rows, dtype=np.int32)[:, None], np.arange(columns, dtype=np.int32)[None, :]
    made: np.ndarray = _hash(_key(np.int32(seed), np.int32(step), PRIME), number, i, j, PRIME).reshape(tuple(shape))
    return made


def hash_tensor(key: Any, number: int, shape: Sequence[Any]) -> Any:
    """Returns the same as a tensor, from the `key_tensor` of seed and step.

    A pure function of its tensors: it may stand in a loop, and ``tf.vectorized_map`` may map it over seeds. Any length
    in ``shape`` may be a scalar ``int32`` tensor, where it is not known while tracing; a short batch gets the first
    rows of a full one.
    """
    import tensorflow as tf

    rows, rest = (shape[0] if shape else 1), list(shape[1:])
    known = all(isinstance(n, int) for n in rest)
    columns = int(np.prod(rest, dtype=np.int64)) if known else tf.reduce_prod(tf.stack(rest))
    # Lengths that are known are arrays, whose divisions cost the program nothing.
    i, j = (np.arange(n, dtype=np.int32) if isinstance(n, int) else tf.range(n) for n in (rows, columns))
    return tf.reshape(_hash(key, number, i[:, None], j[None, :], tf.constant(PRIME)), shape)


def _mix(t: Any, prime: Any) -> Any:
    return (t * t % prime) * t % prime


def _key(seed: Any, step: Any, prime: Any) -> Any:
    """The formula above up to the number of the mask; works on NumPy arrays and on tensors alike."""
    k = _mix((seed % prime + 1) % prime, prime)
    for salt, digit in enumerate((seed // prime, seed // PRIME**2, step % prime, step // prime, step // PRIME**2), 2):
        k = _mix(k + (digit + salt) % prime, prime)
    return k


def _hash(key: Any, number: int, row: Any, column: Any, prime: Any) -> Any:
    """The formula above from there on."""
    k = _mix(key + (number + 7) % PRIME, prime)
    k2 = _mix((k + 8) % prime, prime)
    k3 = _mix((k2 + 9) % prime, prime)
    a, b, c = (_line(n, own, prime) for n, own in ((row, k), (column, k2), (column, k3)))
    return _mix(_mix(a + b, prime) + c, prime)


def _line(places: Any, key: Any, prime: Any) -> Any:
    """Returns the numbers of rows or columns; below P, where ``places // P`` is 0, nothing is added."""
    low = _mix(places % PRIME + key, prime)
    high = places // PRIME
    return _mix(low if isinstance(high, np.ndarray) and not high.any() else low + high, prime)
