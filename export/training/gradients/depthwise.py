"""Depthwise convolution and its gradients: all three as DEPTHWISE_CONV_2D, the one builtin that keeps channels apart.

```
weight gradient  the images of a batch side by side as one wide image, the gradients as one wide *kernel*:
                 a VALID depthwise convolution of the one by the other has the kernel's few positions as its result
input gradient   the gradient, spread by the stride and padded, convolved with the kernel turned by 180°
```
"""

from __future__ import annotations

from typing import Any

from export.training.gradients.convolution import Geometry, geometry, place
from export.training.gradients.rule import Gradients, Node, shape_of
from export.training.gradients.shaping import stretch


def _geometry(node: Node) -> Geometry:
    (_, h, w, _), (kh, kw, *_), (_, oh, ow, _) = (shape_of(t) for t in (*node.op.inputs, node.op.outputs[0]))
    return geometry(node, (h, w), (kh, kw), (oh, ow))


def depthwise(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    x, w = node.inputs
    geo, times = _geometry(node), shape_of(w)[3]
    dx = dw = None
    # A channel multiplier m is m depthwise convolutions; output channel c·m + j belongs to the j-th of them.
    shape = shape_of(g)
    shares = tf.unstack(tf.reshape(g, [*shape[:3], shape[3] // times, times]), axis=-1) if times > 1 else [g]
    if node.needs[0]:
        for j, share in enumerate(shares):
            part = input_gradient(share, w[..., j : j + 1], geo)
            dx = part if dx is None else dx + part
    if node.needs[1]:
        dw = tf.concat([kernel_gradient(x, share, geo) for share in shares], -1)
    return dx, dw


def input_gradient(g: Any, w: Any, geo: Geometry) -> Any:
    """Returns ``float32[b, h, w, c]`` for a kernel ``float32[kh, kw, c, 1]``."""
    import tensorflow as tf

    (kh, kw), (dh, dw) = geo.kernel, geo.dilation
    g = stretch(stretch(g, 1, geo.stride[0]), 2, geo.stride[1])
    reach = ((kh - 1) * dh, (kw - 1) * dw)
    turned = tf.reverse(w, [0, 1])
    if tuple(shape_of(g)[1:3]) == geo.size and (2 * geo.before[0], 2 * geo.before[1]) == reach:
        return convolve(g, turned, geo.dilation, "SAME")
    before = (reach[0] - geo.before[0], reach[1] - geo.before[1])
    return convolve(place(g, before, (geo.size[0] + reach[0], geo.size[1] + reach[1])), turned, geo.dilation)


def convolve(x: Any, w: Any, dilation: tuple[int, int], padding: str = "VALID") -> Any:
    """Returns the depthwise convolution; the raw operation: ``tf.nn`` wraps dilation in batch shuffles."""
    import tensorflow as tf

    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=w, strides=[1, 1, 1, 1], padding=padding, dilations=[1, *dilation, 1]
    )


def kernel_gradient(x: Any, g: Any, geo: Geometry) -> Any:
    """Returns ``float32[kh, kw, c, 1]``."""
    import tensorflow as tf

    batch, oh, ow, depth = shape_of(g)
    (kh, kw), (sh, sw), (dh, dw) = geo.kernel, geo.stride, geo.dilation
    if sh != sw or dh > 1 or dw > 1:
        return _kernel_gradient_by_position(x, g, geo)
    # Tiles are a multiple of the stride wide, so that the strided kernel meets the same columns in every tile; the
    # gradient is zero beyond its own columns, so no tile sees its neighbour.
    tile = -(-(geo.span(1)) // sw) * sw
    wide = tf.transpose(place(x, geo.before, (geo.span(0), tile)), [1, 0, 2, 3])
    wide = tf.reshape(wide, [1, geo.span(0), batch * tile, depth])
    if kw > sw:
        wide = tf.pad(wide, [[0, 0], [0, 0], [0, kw - sw], [0, 0]])
    elif kw < sw:
        wide = tf.slice(wide, [0, 0, 0, 0], [1, geo.span(0), batch * tile + kw - sw, depth])
    kernel = tf.transpose(tf.pad(g, [[0, 0], [0, 0], [0, tile // sw - ow], [0, 0]]), [1, 0, 2, 3])
    kernel = tf.reshape(kernel, [oh, batch * (tile // sw), depth, 1])
    flat = convolve(wide, kernel, (sh, sw))
    return tf.reshape(flat, [kh, kw, depth, 1])


def _kernel_gradient_by_position(x: Any, g: Any, geo: Geometry) -> Any:
    """One product and sum per kernel position: slower, for dilations, and strides that differ by axis."""
    import tensorflow as tf

    from export.training.gradients.rule import sum_rows

    batch, oh, ow, depth = shape_of(g)
    x, (sh, sw) = place(x, geo.before, (geo.span(0), geo.span(1))), geo.stride
    starts = [(i * geo.dilation[0], j * geo.dilation[1]) for i in range(geo.kernel[0]) for j in range(geo.kernel[1])]
    ends = [(i + (oh - 1) * sh + 1, j + (ow - 1) * sw + 1) for i, j in starts]
    views = [
        tf.strided_slice(x, [0, *start, 0], [batch, *end, depth], [1, sh, sw, 1])
        for start, end in zip(starts, ends, strict=True)
    ]
    return tf.reshape(tf.concat([sum_rows(view * g) for view in views], 0), [*geo.kernel, depth, 1])
