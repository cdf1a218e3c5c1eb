"""Batch normalisation in training mode as one operation with its closed-form gradient (Ioffe & Szegedy, ICML 2015).

Traced piece by piece it costs twice the passes over memory. The mask of a short batch enters after the sums over
space, on ``float32[batch, channels]``, where it is free: rows of mask 0 do not count and get no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, shape_of, sum_rows


def _per_example(tensor: Any) -> Any:
    """Sums ``float32[b, …, c]`` over everything between the first and last axis."""
    import tensorflow as tf

    shape = shape_of(tensor)
    if len(shape) == 2:
        return tensor
    if len(shape) != 4:
        tensor = tf.reshape(tensor, [shape[0], int(np.prod(shape[1:-1])), 1, shape[-1]])
    return tf.reduce_sum(tensor, [1, 2])


def batch_norm_forward(node: Node) -> Gradients:
    """Inputs x, gamma ``[c]``, beta ``[c]``, mask ``[b]``, epsilon; outputs y, mean ``[c]``, variance ``[c]``."""
    import tensorflow as tf

    x, gamma, beta, mask, _ = node.inputs
    shape = shape_of(x)
    weight = tf.reshape(mask, [shape[0], 1])
    share = weight / tf.maximum(tf.reduce_sum(mask) * float(np.prod(shape[1:-1])), 1.0)
    mean = tf.reduce_sum(_per_example(x) * share, 0)
    centred = x - mean
    variance = tf.reduce_sum(_per_example(centred * centred) * share, 0)
    inverse = tf.math.rsqrt(variance + float(node.static(4)))
    node.saved.update(centred=centred, inverse=inverse, share=share)
    return centred * (inverse * gamma) + beta, mean, variance


def batch_norm(node: Node, g: Any, g_mean: Any = None, g_variance: Any = None) -> Gradients:
    """Statistics leave the operation only for the moving averages, so they bring no gradient back."""
    import tensorflow as tf

    x, gamma, _, _, _ = node.inputs
    centred, inverse, share = (node.saved[k] for k in ("centred", "inverse", "share"))
    beta_gradient = sum_rows(g)
    gamma_gradient = sum_rows(g * centred) * inverse
    dx = None
    if node.needs[0]:
        shape = shape_of(x)
        scale = gamma * inverse
        per_row = [shape[0], *[1] * (len(shape) - 2), shape[-1]]
        slope = tf.reshape(share * (scale * inverse * gamma_gradient), per_row)
        level = tf.reshape(share * (scale * beta_gradient), per_row)
        dx = g * scale - (centred * slope + level)
    return dx, gamma_gradient, beta_gradient, None, None
