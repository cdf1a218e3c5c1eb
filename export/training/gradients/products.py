"""Rules of matrix products: XNNPACK multiplies two run-time matrices near the core's peak."""

from __future__ import annotations

from typing import Any

from export.training.gradients.rule import Gradients, Node, shape_of, unbroadcast


def transposed(tensor: Any) -> Any:
    """Swaps the last two axes."""
    import tensorflow as tf

    rank = len(shape_of(tensor))
    return tf.transpose(tensor, [*range(rank - 2), rank - 1, rank - 2])


def product(left: Any, right: Any) -> Any:
    """Returns the product of two matrices as one of rank 3, which the converter must leave a BATCH_MATMUL.

    It makes FULLY_CONNECTED of some of rank 2, which XNNPACK does not take with run-time weights: twice as slow, and a
    cut through the delegate's graph.
    """
    import tensorflow as tf

    (rows, depth), columns = shape_of(left), shape_of(right)[1]
    three = tf.matmul(tf.reshape(left, [1, rows, depth]), tf.reshape(right, [1, depth, columns]))
    return tf.reshape(three, [rows, columns])


def _flags(node: Node) -> tuple[bool, bool]:
    names = ("transpose_a", "transpose_b") if node.op.type == "MatMul" else ("adj_x", "adj_y")
    return node.attr(names[0]), node.attr(names[1])


def matmul_forward(node: Node) -> Gradients:
    """The same product with explicit transposes: a TRANSPOSE that XNNPACK runs, not one inside BATCH_MATMUL."""
    import tensorflow as tf

    x, y = (transposed(t) if flag else t for t, flag in zip(node.inputs, _flags(node), strict=True))
    return (tf.matmul(x, y),)


def matmul(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    (x, y), (flip_x, flip_y) = node.inputs, _flags(node)
    left = transposed(x) if flip_x else x
    right = transposed(y) if flip_y else y
    dx = dy = None
    if node.needs[0]:
        dx = (
            product(g, transposed(right))
            if len(shape_of(right)) == len(shape_of(g)) == 2
            else tf.matmul(g, transposed(right))
        )
        dx = unbroadcast(transposed(dx) if flip_x else dx, x)
    if node.needs[1]:
        dy = tf.matmul(transposed(left), g)
        dy = unbroadcast(transposed(dy) if flip_y else dy, y)
    return dx, dy


def einsum(node: Node, *gradients: Any) -> Gradients:
    """Two-operand einsum without repeated or summed-away letters inside one operand, as attention layers write it."""
    import tensorflow as tf

    (g,) = gradients
    equation = node.attr("equation").replace(" ", "")
    terms, out = equation.split("->")
    names = terms.split(",")
    if len(names) != 2 or "." in equation or any(len(set(n)) != len(n) for n in names):
        raise ValueError(f"einsum '{equation}' is not supported; write it with matmul, reshape and transpose")
    (a, b), (x, y) = names, node.inputs
    if set(a) - set(b) - set(out) or set(b) - set(a) - set(out):
        raise ValueError(f"einsum '{equation}' sums a letter of one operand alone; use reduce_sum first")
    dx = tf.einsum(f"{out},{b}->{a}", g, y) if node.needs[0] else None
    dy = tf.einsum(f"{a},{out}->{b}", x, g) if node.needs[1] else None
    return dx, dy
