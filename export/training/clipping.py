"""Clipping inside the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def clipped(gradients: Sequence[Any], clip_norm: float) -> list[Any]:
    """Returns the gradients scaled down to a global L2 norm of at most ``clip_norm``; 0 leaves them alone.

    One vectorised square-sum a tensor, so that no delegate partition is split.
    """
    import tensorflow as tf

    if not clip_norm:
        return list(gradients)
    squares = [tf.reduce_sum(tf.reshape(g * g, [-1])) for g in gradients]
    norm = tf.sqrt(tf.add_n(squares)) if len(squares) == 1 else tf.sqrt(sum(squares[1:], squares[0]))
    scale = tf.minimum(clip_norm / tf.maximum(norm, 1e-30), 1.0)
    return [g * scale for g in gradients]
