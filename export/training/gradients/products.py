"""Rules of matrix products: XNNPACK multiplies two run-time matrices near the core's peak."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, shape_of, unbroadcast

FENCE = 1.0 - 2.0**-24
"""Slope of the LEAKY_RELU that stands behind a product until `tidy` has taken it away."""


def transposed(tensor: Any) -> Any:
    """Swaps the last two axes."""
    import tensorflow as tf

    rank = len(shape_of(tensor))
    return tf.transpose(tensor, [*range(rank - 2), rank - 1, rank - 2])


def multiplied(left: Any, right: Any) -> Any:
    """Returns ``tf.matmul`` behind a fence that no fusion of the converter passes; `tidy` takes the fence away.

    TensorFlow 2.21's converter fuses an activation into the FULLY_CONNECTED it makes of some products, and loses the
    activation where it turns that into a BATCH_MATMUL again. A LEAKY_RELU is fused with nothing; its slope is one
    rounding below 1, because slope 1 is folded away too early.
    """
    import tensorflow as tf

    return tf.raw_ops.LeakyRelu(features=tf.matmul(left, right), alpha=FENCE)


def product(left: Any, right: Any) -> Any:
    """Returns the product of two matrices as one of rank 3, which the converter must leave a BATCH_MATMUL.

    It makes FULLY_CONNECTED of some of rank 2, which XNNPACK does not take with run-time weights: twice as slow, and a
    cut through the delegate's graph.
    """
    import tensorflow as tf

    (rows, depth), columns = shape_of(left), shape_of(right)[1]
    three = multiplied(tf.reshape(left, [1, rows, depth]), tf.reshape(right, [1, depth, columns]))
    return tf.reshape(three, [rows, columns])


def _flags(node: Node) -> tuple[bool, bool]:
    names = ("transpose_a", "transpose_b") if node.op.type == "MatMul" else ("adj_x", "adj_y")
    return node.attr(names[0]), node.attr(names[1])


def matmul_forward(node: Node) -> Gradients:
    """The same product with explicit transposes: a TRANSPOSE that XNNPACK runs, not one inside BATCH_MATMUL."""
    import tensorflow as tf

    x, y = (transposed(t) if flag else t for t, flag in zip(node.inputs, _flags(node), strict=True))
    left, right = shape_of(x), shape_of(y)
    if len(right) > 2:
        return (multiplied(x, y),)
    if len(left) == 2:
        return (product(x, y),)
    made = product(tf.reshape(x, [int(np.prod(left[:-1])), left[-1]]), y)
    return (tf.reshape(made, [*left[:-1], right[1]]),)


def matmul(node: Node, g: Any) -> Gradients:
    (x, y), (flip_x, flip_y) = node.inputs, _flags(node)
    left = transposed(x) if flip_x else x
    right = transposed(y) if flip_y else y
    dx = dy = None
    if node.needs[0]:
        dx = (
            product(g, transposed(right))
            if len(shape_of(right)) == len(shape_of(g)) == 2
            else multiplied(g, transposed(right))
        )
        dx = unbroadcast(transposed(dx) if flip_x else dx, x)
    if node.needs[1]:
        dy = multiplied(transposed(left), g)
        dy = unbroadcast(transposed(dy) if flip_y else dy, y)
    return dx, dy


def einsum_forward(node: Node) -> Gradients:
    """TRANSPOSE, RESHAPE and one product, so that the converter chooses nothing."""
    return (contracted(*_letters(node), *node.inputs),)


def einsum(node: Node, *gradients: Any) -> Gradients:
    (g,), (a, b, out), (x, y) = gradients, _letters(node), node.inputs
    dx = contracted(a=out, b=b, out=a, x=g, y=y) if node.needs[0] else None
    dy = contracted(a=a, b=out, out=b, x=x, y=g) if node.needs[1] else None
    return dx, dy


def _letters(node: Node) -> tuple[str, str, str]:
    """Returns the letters of both operands and of the result, as attention layers write them.

    Raises:
        ValueError: Not two operands, or a letter is repeated in one or summed away in one alone.
    """
    equation = node.attr("equation").replace(" ", "")
    terms, _, out = equation.partition("->")
    names = terms.split(",")
    if len(names) != 2 or "." in equation or any(len(set(n)) != len(n) for n in names):
        raise ValueError(f"einsum '{equation}' is not supported; write it with matmul, reshape and transpose")
    a, b = names
    if set(a) - set(b) - set(out) or set(b) - set(a) - set(out):
        raise ValueError(f"einsum '{equation}' sums a letter of one operand alone; use reduce_sum first")
    return a, b, out


def contracted(a: str, b: str, out: str, x: Any, y: Any) -> Any:
    """Returns the einsum ``a,b->out`` of two tensors: letters of all three are batches, of ``a`` and ``b`` summed."""
    import tensorflow as tf

    size = {**dict(zip(a, shape_of(x), strict=True)), **dict(zip(b, shape_of(y), strict=True))}
    batch = [c for c in a if c in b and c in out]
    summed = [c for c in a if c in b and c not in out]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]

    def as_matrix(tensor: Any, letters: str, *groups: list[str]) -> Any:
        order = [letters.index(c) for group in (batch, *groups) for c in group]
        tensor = tf.transpose(tensor, order) if order != sorted(order) else tensor
        return tf.reshape(tensor, [size[c] for c in batch] + [int(np.prod([size[c] for c in g])) for g in groups])

    left, right = as_matrix(x, a, rows, summed), as_matrix(y, b, summed, columns)
    made = multiplied(left, right) if batch else product(left, right)
    order = [*batch, *rows, *columns]
    made = tf.reshape(made, [size[c] for c in order])
    places = [order.index(c) for c in out]
    return tf.transpose(made, places) if places != sorted(places) else made
