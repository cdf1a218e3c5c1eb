"""Convolution, bias, ReLU and max-pool as one rule, when the windows of the pool neither overlap nor leave gaps.

A window position of the pool sees a convolution of its own, with the pool's stride. So the convolution is made once for
every position, as a matrix, and pooling is an elementwise maximum of these matrices; backwards each takes its share of
the gradient straight into its own product. Nothing of the convolution's full size is ever shuffled: SPACE_TO_DEPTH,
SPLIT and DEPTH_TO_SPACE of it took a sixth of a CNN's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.training.gradients.convolution import (
    Geometry,
    flat_kernel,
    geometry,
    input_gradient,
    place,
    plan_of,
    unflatten_kernel,
)
from export.training.gradients.pooling import shares_of
from export.training.gradients.products import transposed
from export.training.gradients.rule import Gradients, Node, positive, shape_of, sum_rows


@dataclass(frozen=True)
class Chain:
    """Operations of the user's graph from a convolution to the max-pool that alone reads its result.

    Attributes:
        convolution: ``Conv2D``, stride 1.
        bias: The addition's other input, or None.
        relu: Whether there is one in front of the pool.
        size: Height and width of the pool's windows.
    """

    convolution: Any
    bias: Any
    relu: bool
    size: int

    @property
    def inputs(self) -> list[Any]:
        """The traced tensors the rule computes from."""
        return [*self.convolution.inputs, *([] if self.bias is None else [self.bias])]


def chain_of(pool: Any) -> Chain | None:
    """Returns what ends in this max-pool, or None if the rule does not fit it."""
    op, relu = pool.inputs[0].op, False
    if op.type == "Relu" and _alone(op):
        op, relu = op.inputs[0].op, True
    bias = None
    if op.type in ("BiasAdd", "AddV2") and _alone(op):
        channels = op.outputs[0].shape[-1]
        if op.inputs[0].op.type == "Conv2D" and op.inputs[1].shape.num_elements() == channels:
            op, bias = op.inputs[0].op, op.inputs[1]
    kernel, stride = (tuple(pool.get_attr(name)[1:3]) for name in ("ksize", "strides"))
    if op.type != "Conv2D" or not _alone(op) or kernel != stride or kernel[0] != kernel[1] or kernel[0] < 2:
        return None
    plain = all(list(op.get_attr(name)) == [1, 1, 1, 1] for name in ("strides", "dilations"))
    one_group = op.inputs[0].shape[-1] == op.inputs[1].shape[2]
    whole = all(o * kernel[0] <= n for o, n in zip(pool.outputs[0].shape[1:3], op.outputs[0].shape[1:3], strict=True))
    formats = {o.get_attr("data_format") for o in (op, pool)}
    if not (plain and one_group and whole and formats == {b"NHWC"} and op.get_attr("padding") != b"EXPLICIT"):
        return None
    return Chain(op, bias, relu, kernel[0])


def _alone(op: Any) -> bool:
    """Returns whether one operation reads the result, and the caller of the graph does not."""
    result = op.outputs[0]
    returned = any(result is t or result.name == t.name for t in getattr(op.graph, "outputs", ()))
    return len(result.consumers()) == 1 and not returned


def _read(node: Node) -> tuple[Chain, Geometry]:
    chain = chain_of(node.op)
    if chain is None:
        raise ValueError("not a convolution in front of a max-pool")
    (_, h, w, _), (kh, kw, *_), (_, oh, ow, _) = (shape_of(t) for t in (*node.inputs[:2], chain.convolution.outputs[0]))
    return chain, geometry(Node(chain.convolution, node.inputs[:2]), (h, w), (kh, kw), (oh, ow))


def _patches(x: Any, geo: Geometry, size: int, out: tuple[int, int]) -> list[Any]:
    """Returns for every position of the pool's window, rows before columns, ``float32[b · oh · ow, kh · kw · c]``."""
    import tensorflow as tf

    batch, _, _, depth = shape_of(x)
    reach = [-(-(o * size + k - 1) // size) * size for o, k in zip(out, geo.kernel, strict=True)]
    phases = tf.nn.space_to_depth(place(x, geo.before, (reach[0], reach[1])), size)
    count, views = batch * out[0] * out[1], {}
    for row in range(size + geo.kernel[0] - 1):
        for column in range(size + geo.kernel[1] - 1):
            at = [0, row // size, column // size, (row % size * size + column % size) * depth]
            view = tf.slice(phases, at, [batch, *out, depth])
            views[row, column] = tf.reshape(view, [1, count] if depth == 1 else [count, depth])
    made = []
    for row, column in _positions(size):
        seen = [views[row + i, column + j] for i, j in _positions(*geo.kernel)]
        # One channel: CONCATENATION would copy single floats; one TRANSPOSE of whole views takes an eighth of the time.
        made.append(tf.transpose(tf.concat(seen, 0)) if depth == 1 else tf.concat(seen, -1))
    return made


def _positions(rows: int, columns: int | None = None) -> list[tuple[int, int]]:
    return [(i, j) for i in range(rows) for j in range(rows if columns is None else columns)]


def forward(node: Node) -> Gradients:
    """Returns the pooled result; keeps patches and results of every position."""
    import tensorflow as tf

    (chain, geo), (x, w, *bias) = _read(node), node.inputs
    shape = shape_of(node.op.outputs[0])
    cols = _patches(x, geo, chain.size, (shape[1], shape[2]))
    flat = flat_kernel(w, plan_of(geo))
    views = [tf.matmul(c, flat) for c in cols]
    if bias:  # before the maximum, as TensorFlow does: rounding may make two sums equal that were not
        views = [v + tf.reshape(bias[0], [shape[3]]) for v in views]
    best = views[0]
    for view in views[1:]:
        best = tf.maximum(best, view)
    pooled = tf.nn.relu(best) if chain.relu else best
    node.saved.update(patches=cols, views=views, best=best, pooled=pooled)
    return (tf.reshape(pooled, shape),)


def backward(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    (chain, geo), (x, w, *bias) = _read(node), node.inputs
    batch, oh, ow, channels = shape_of(g)
    g = tf.reshape(g, [batch * oh * ow, channels])
    if chain.relu:
        g = g * positive(node.saved["pooled"])
    parts = shares_of(node.saved["views"], node.saved["best"], g)
    dx = dw = db = None
    if node.needs[0]:
        image = tf.reshape(tf.concat(parts, -1), [batch, oh, ow, chain.size**2 * channels])
        image = place(tf.nn.depth_to_space(image, chain.size), (0, 0), geo.out)
        dx = input_gradient(image, w, plan_of(geo), shape_of(x)[3])
    if node.needs[1]:
        for cols, part in zip(node.saved["patches"], parts, strict=True):
            product = tf.matmul(transposed(cols), part)
            dw = product if dw is None else dw + product
        dw = unflatten_kernel(dw, shape_of(w), plan_of(geo))
    if bias and node.needs[2]:
        db = tf.reshape(sum_rows(g), shape_of(bias[0]))
    return dx, dw, *([db] if bias else [])
