"""Pooling gradients with TensorFlow's ties: a window's gradient goes to its first maximum, rows before columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.activations import masked_by_pools
from export.training.gradients.convolution import Geometry, geometry, lift, place
from export.training.gradients.rule import Gradients, Node, positive, shape_of
from export.training.gradients.shaping import stretch

LOWEST = float(np.finfo(np.float32).min)


def _geometry(node: Node) -> Geometry:
    kernel = tuple(node.attr("ksize")[1:3])
    (_, h, w, _), (_, oh, ow, _) = shape_of(node.op.inputs[0]), shape_of(node.op.outputs[0])
    return geometry(node, (h, w), kernel, (oh, ow), dilated=False)


def shares_of(views: list[Any], best: Any, g: Any) -> list[Any]:
    """Splits ``g`` over the positions of a window: all of it to the first view that equals ``best``.

    ``rest`` is what no earlier position has taken; the last position needs no test, one of them must hold the maximum.
    """
    shares, rest = [], g
    for view in views[:-1]:
        later = rest * positive(best - view)
        shares.append(rest - later)
        rest = later
    return [*shares, rest]


def max_pool(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    geo, (x,), (best,) = _geometry(node), node.inputs, node.outputs
    depth, (kh, kw) = shape_of(x)[3], geo.kernel
    before = node.op.inputs[0].op
    if before.type == "Relu" and masked_by_pools(before):
        g = g * positive(best)
    if geo.kernel == geo.stride and kh == kw:
        size = (geo.out[0] * kh, geo.out[1] * kw)
        blocks = tf.nn.space_to_depth(place(x, geo.before, size, LOWEST), kh) if kh > 1 else x
        shares = shares_of(tf.split(blocks, kh * kw, -1), best, g)
        image = tf.nn.depth_to_space(tf.concat(shares, -1), kh) if kh > 1 else shares[0]
        return (lift(image, geo.before, geo.size),)
    size = (geo.span(0), geo.span(1))
    x = place(x, geo.before, size, LOWEST)
    starts = [(i, j) for i in range(kh) for j in range(kw)]
    steps, (oh, ow) = geo.stride, geo.out
    views = [_every(x=x, row=i, column=j, oh=oh, ow=ow, steps=steps, depth=depth) for i, j in starts]
    total = None
    for (i, j), share in zip(starts, shares_of(views, best, g), strict=True):
        spread = stretch(stretch(share, 1, steps[0]), 2, steps[1])
        spread = place(lift(spread, (0, 0), ((oh - 1) * steps[0] + 1, (ow - 1) * steps[1] + 1)), (i, j), size)
        total = spread if total is None else total + spread
    return (lift(total, geo.before, geo.size),)


def _every(x: Any, row: int, column: int, oh: int, ow: int, steps: tuple[int, int], depth: int) -> Any:
    (sh, sw), batch = steps, shape_of(x)[0]
    import tensorflow as tf

    end = [batch, row + (oh - 1) * sh + 1, column + (ow - 1) * sw + 1, depth]
    return tf.strided_slice(x, [0, row, column, 0], end, [1, sh, sw, 1])


def average_pool(node: Node, g: Any) -> Gradients:
    """Padding does not count: every window's gradient is divided by the number of its real inputs."""
    import tensorflow as tf

    geo, depth = _geometry(node), shape_of(node.inputs[0])[3]
    (kh, kw), (sh, sw) = geo.kernel, geo.stride
    counts = [
        [max(min(o * s - b + k, n) - max(o * s - b, 0), 1) for o in range(out)]
        for out, s, b, k, n in zip(geo.out, geo.stride, geo.before, geo.kernel, geo.size, strict=True)
    ]
    shares = g * (1.0 / np.multiply.outer(*counts).astype(np.float32))[None, :, :, None]
    if geo.kernel == geo.stride and kh == kw:
        image = tf.nn.depth_to_space(tf.concat([shares] * (kh * kw), -1), kh) if kh > 1 else shares
        return (lift(image, geo.before, geo.size),)
    spread = stretch(stretch(shares, 1, sh), 2, sw)
    spread = place(spread, (kh - 1, kw - 1), (geo.span(0) + kh - 1, geo.span(1) + kw - 1))
    ones = np.ones((kh, kw, depth, 1), np.float32)
    return (lift(tf.nn.depthwise_conv2d(spread, ones, [1, 1, 1, 1], "VALID"), geo.before, geo.size),)
