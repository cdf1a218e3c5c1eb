"""Rules of arithmetic that works element by element.

Every derivative is written with operations that XNNPACK runs (multiply, minimum, sign), and ties fall as
TensorFlow's kernels let them fall: ``maximum`` favours its first input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, positive, shape_of, sum_rows, unbroadcast


def both(node: Node, left: Any, right: Any) -> Gradients:
    """Returns the gradients of a binary operation, summed back where an input was broadcast."""
    x, y = node.inputs
    return (unbroadcast(left(), x) if node.needs[0] else None, unbroadcast(right(), y) if node.needs[1] else None)


def add(node: Node, g: Any) -> Gradients:
    return both(node, lambda: g, lambda: g)


def subtract(node: Node, g: Any) -> Gradients:
    return both(node, lambda: g, lambda: -g)


def multiply(node: Node, g: Any) -> Gradients:
    x, y = node.inputs
    return both(node, lambda: g * y, lambda: g * x)


def divide(node: Node, g: Any) -> Gradients:
    _, y = node.inputs
    return both(node, lambda: g / y, lambda: -g * node.outputs[0] / y)


def divide_no_nan_forward(node: Node) -> Gradients:
    import tensorflow as tf

    x, y = node.inputs
    zero = tf.equal(y, 0.0)
    safe = tf.where(zero, tf.ones_like(y), y)
    return (tf.where(zero, tf.zeros_like(x / safe), x / safe),)


def divide_no_nan(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    _, y = node.inputs
    zero = tf.equal(y, 0.0)
    inverse = tf.where(zero, tf.zeros_like(y), 1.0 / tf.where(zero, tf.ones_like(y), y))
    return both(node, lambda: g * inverse, lambda: -g * node.outputs[0] * inverse)


def squared_difference(node: Node, g: Any) -> Gradients:
    x, y = node.inputs
    d = 2.0 * g * (x - y)
    return both(node, lambda: d, lambda: -d)


def maximum(node: Node, g: Any) -> Gradients:
    first = g * (1.0 - positive(node.outputs[0] - node.inputs[0]))
    return both(node, lambda: first, lambda: g - first)


def minimum(node: Node, g: Any) -> Gradients:
    first = g * (1.0 - positive(node.inputs[0] - node.outputs[0]))
    return both(node, lambda: first, lambda: g - first)


def power(node: Node, g: Any) -> Gradients:
    """d x^p with a constant exponent; a learnt exponent has no rule."""
    import tensorflow as tf

    if node.needs[1]:
        raise ValueError("a trainable exponent is not supported; write exp(y * log(x))")
    x, exponent = node.inputs[0], node.static(1)
    return both(node, lambda: g * exponent * tf.pow(x, exponent - 1.0), lambda: None)


def add_n(node: Node, g: Any) -> Gradients:
    return [g] * len(node.inputs)


def add_n_forward(node: Node) -> Gradients:
    total = node.inputs[0]
    for term in node.inputs[1:]:
        total = total + term
    return (total,)


def bias_add(node: Node, g: Any) -> Gradients:
    return (g, sum_rows(g) if node.needs[1] else None)


def bias_add_forward(node: Node) -> Gradients:
    if node.attr("data_format") != "NHWC":
        raise ValueError("channels_first is not supported on phones; build the model with channels_last")
    return (node.inputs[0] + node.inputs[1],)


def exp(node: Node, g: Any) -> Gradients:
    return (g * node.outputs[0],)


def log(node: Node, g: Any) -> Gradients:
    return (g / node.inputs[0],)


def log1p_forward(node: Node) -> Gradients:
    import tensorflow as tf

    return (tf.math.log(1.0 + node.inputs[0]),)


def log1p(node: Node, g: Any) -> Gradients:
    return (g / (1.0 + node.inputs[0]),)


def expm1_forward(node: Node) -> Gradients:
    """eˣ − 1 is elu(x) below 0, and −elu(−x)·eˣ above: no digits are lost near 0."""
    import tensorflow as tf

    below, above = tf.minimum(node.inputs[0], 0.0), tf.maximum(node.inputs[0], 0.0)
    return (tf.nn.elu(below) - tf.nn.elu(-above) * tf.exp(above),)


def expm1(node: Node, g: Any) -> Gradients:
    return (g * (node.outputs[0] + 1.0),)


def square(node: Node, g: Any) -> Gradients:
    return (2.0 * g * node.inputs[0],)


def sqrt(node: Node, g: Any) -> Gradients:
    return (0.5 * g / node.outputs[0],)


_SMALLEST, _LARGE = 2.0**-126, 2.0**127


def rsqrt_forward(node: Node) -> Gradients:
    """Answers 2⁶³ where TensorFlow answers infinity: XNNPACK's kernel for PCs makes NaN of 0, ``UnitNormalization`` of
    a row of zeros for one. What is negative stays negative, and what has a positive number added is left alone."""
    import tensorflow as tf

    (x,), source = node.inputs, node.op.inputs[0].op
    if source.type in ("AddV2", "Add", "Maximum"):
        offsets = [value for value in map(tf.get_static_value, source.inputs) if value is not None]
        if any(np.all(value > _SMALLEST) for value in offsets):
            return (tf.math.rsqrt(x),)
    return (tf.math.rsqrt(tf.maximum(x, _SMALLEST) + tf.minimum(x, 0.0) * _LARGE),)


def rsqrt(node: Node, g: Any) -> Gradients:
    y = node.outputs[0]
    return (-0.5 * g * y * y * y,)


def reciprocal_forward(node: Node) -> Gradients:
    return (1.0 / node.inputs[0],)


def reciprocal(node: Node, g: Any) -> Gradients:
    y = node.outputs[0]
    return (-g * y * y,)


def negative(node: Node, g: Any) -> Gradients:
    return (-g,)


def absolute(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (g * tf.sign(node.inputs[0]),)


def sine(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (g * tf.cos(node.inputs[0]),)


def cosine(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (-g * tf.sin(node.inputs[0]),)


def cast(node: Node, g: Any) -> Gradients:
    return (g if node.op.inputs[0].dtype == node.op.outputs[0].dtype else None,)


def identity(node: Node, *gradients: Any) -> Gradients:
    return gradients


def identity_forward(node: Node) -> Gradients:
    return node.inputs


def blocked(node: Node, *gradients: Any) -> Gradients:
    """No gradient passes: stop_gradient, comparisons, rounding, sign."""
    return [None] * len(node.inputs)


def select(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    condition, x, y = node.inputs
    zeros = tf.zeros(shape_of(g))
    return (
        None,
        unbroadcast(tf.where(condition, g, zeros), x) if node.needs[1] else None,
        unbroadcast(tf.where(condition, zeros, g), y) if node.needs[2] else None,
    )


def clip_forward(node: Node) -> Gradients:
    import tensorflow as tf

    x, low, high = node.inputs
    return (tf.maximum(tf.minimum(x, high), low),)


def clip(node: Node, g: Any) -> Gradients:
    """Passes where low ≤ x ≤ high, ends included, as TensorFlow does: there, clipping left the value alone."""
    import tensorflow as tf

    moved = tf.abs(node.outputs[0] - node.inputs[0])
    return (g * (1.0 - positive(moved)), None, None)
