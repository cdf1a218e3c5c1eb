"""Pictures that are rotated, zoomed, moved or sheared: ``ImageProjectiveTransformV3`` as GATHER of whole pixels.

Every output pixel looks up where it comes from, ``(x', y') = ((a₀x + a₁y + a₂) / k, (b₀x + b₁y + b₂) / k)`` with
``k = c₀x + c₁y + 1``, and takes the nearest pixel there, or weighs the four around it. Places outside the picture are
folded back into it by the fill mode, as TensorFlow's kernel does (``core/kernels/image/image_ops.h``), or give the
fill value. TensorFlow's gradient of it is not its derivative, so it has none here: pictures are warped before anything
is trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, shape_of


def forward(node: Node) -> tuple[Any, ...]:
    import tensorflow as tf

    images, fill = node.inputs[0], float(node.static(3))
    batch, height, width, depth = shape_of(images)
    _, out_height, out_width, _ = shape_of(node.op.outputs[0])
    pixels, count = tf.reshape(images, [batch * height * width, depth]), batch * out_height * out_width
    firsts = tf.constant(np.arange(batch, dtype=np.int32)[:, None] * (height * width))
    total: Any = 0.0
    known: Any = 0.0
    for row, column, share in _corners(node, (height, width), (out_height, out_width)):
        if node.attr("fill_mode") == "CONSTANT":  # elsewhere a corner beyond the edge weighs nothing anyway
            share *= _inside(row, height) * _inside(column, width)
        at = tf.cast(_clipped(row, height) * float(width) + _clipped(column, width), tf.int32)
        share = tf.reshape(share, [count, 1])
        total += tf.gather(pixels, tf.reshape(at + firsts, [count])) * share
        known += share
    if fill:
        total += fill * (1.0 - known)
    return (tf.reshape(total, [batch, out_height, out_width, depth]),)


def backward(node: Node, g: Any) -> Gradients:
    raise ValueError("put augmentation in front of the first layer that trains; no gradient goes through it")


def _corners(node: Node, size: tuple[int, int], out: tuple[int, int]) -> list[tuple[Any, Any, Any]]:
    """Returns rows, columns and weights, each ``float32[b, oh · ow]``, of the pixels an output pixel is made of."""
    import tensorflow as tf

    y, x = (tf.constant(n.reshape(1, -1).astype(np.float32)) for n in np.mgrid[: out[0], : out[1]])
    batch, places = shape_of(node.inputs[0])[0], out[0] * out[1]
    t = tf.broadcast_to(node.inputs[1], [batch, 8])
    a, b, c = ([t[:, at : at + 1] for at in range(first, last)] for first, last in ((0, 3), (3, 6), (6, 8)))
    k = c[0] * x + c[1] * y + 1.0
    nowhere = tf.equal(k, 0.0)
    k = tf.where(nowhere, tf.ones_like(k), k)
    column, row = ((m[0] * x + m[1] * y + m[2]) / k for m in (a, b))
    fold = _FOLD[node.attr("fill_mode")]
    row, column = (fold(v, n) for v, n in ((row, size[0]), (column, size[1])))
    there = tf.where(nowhere, tf.zeros_like(k), tf.ones_like(k))
    if node.attr("interpolation") == "NEAREST":
        return [(_rounded(row), _rounded(column), tf.reshape(there, [batch, places]))]
    top, left = tf.floor(row), tf.floor(column)
    rows, columns = [(top, top + 1.0 - row), (top + 1.0, row - top)], [(left, left + 1.0 - column)]
    columns += [(left + 1.0, column - left)]
    return [(r, c, there * share * of) for r, share in rows for c, of in columns]


def _rounded(v: Any) -> Any:
    """Returns the nearest whole number, halves away from zero."""
    import tensorflow as tf

    return tf.where(v < 0, -tf.floor(0.5 - v), tf.floor(v + 0.5))


def _clipped(v: Any, length: int) -> Any:
    import tensorflow as tf

    return tf.minimum(tf.maximum(v, 0.0), float(length - 1))


def _inside(v: Any, length: int) -> Any:
    import tensorflow as tf

    return tf.cast(tf.logical_and(v >= 0.0, v <= float(length - 1)), tf.float32)


def _constant(v: Any, length: int) -> Any:
    """Leaves a place where it is; far outside is as good as outside, and can be a whole number."""
    import tensorflow as tf

    return tf.minimum(tf.maximum(v, -3.0), length + 2.0)


def _reflect(v: Any, length: int) -> Any:
    """``[abcd]`` goes on as ``[dcba|abcd|dcba]``."""
    import tensorflow as tf

    if length == 1:
        return tf.zeros_like(v)
    twice, size = 2.0 * length, float(length)
    low = v + twice * tf.floor(-v / twice)
    low = tf.where(low < -size, low + twice, -low - 1.0)
    high = v - twice * tf.floor(v / twice)
    high = tf.where(high >= size, twice - high - 1.0, high)
    return _clipped(tf.where(v < 0.0, low, tf.where(v > size - 1.0, high, v)), length)


def _wrap(v: Any, length: int) -> Any:
    """``[abcd]`` goes on as ``[abcd|abcd|abcd]``."""
    import tensorflow as tf

    if length == 1:
        return tf.zeros_like(v)
    step, size = float(length - 1), float(length)
    low = v + size * (tf.floor(-v / step) + 1.0)
    high = v - size * tf.floor(v / step)
    return _clipped(tf.where(v < 0.0, low, tf.where(v > step, high, v)), length)


_FOLD = {"CONSTANT": _constant, "REFLECT": _reflect, "WRAP": _wrap, "NEAREST": _clipped}
