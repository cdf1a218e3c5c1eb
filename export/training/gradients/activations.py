"""Rules of activations. At corners as TensorFlow's kernels: relu'(0) = relu6'(0) = relu6'(6) = 0, selu'(0) = 1.05."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, positive

_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def relu(node: Node, g: Any) -> Gradients:
    """Leaves the mask to the pools when only they read the result: they mask a quarter of the numbers."""
    return (g if masked_by_pools(node.op) else g * positive(node.outputs[0]),)


def masked_by_pools(op: Any) -> bool:
    """Returns whether max-pools alone read a relu; `pooling.max_pool` then passes no gradient where a maximum is 0."""
    result = op.outputs[0]
    returned = any(result is t or result.name == t.name for t in getattr(op.graph, "outputs", ()))
    readers = result.consumers()
    return bool(readers) and not returned and all(r.type == "MaxPool" for r in readers)


def relu6(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    y = node.outputs[0]
    return (g * positive(tf.minimum(y, 6.0 - y)),)


def leaky_relu(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    alpha = node.attr("alpha")
    return (g * (alpha + (1.0 - alpha) * positive(tf.nn.relu(node.inputs[0]))),)


def elu(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (g * tf.minimum(node.outputs[0] + 1.0, 1.0),)


def selu_forward(node: Node) -> Gradients:
    import tensorflow as tf

    x = node.inputs[0]
    return (_SELU_SCALE * (tf.nn.relu(x) + _SELU_ALPHA * (tf.exp(tf.minimum(x, 0.0)) - 1.0)),)


def selu(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    y = node.outputs[0]
    below = positive(tf.nn.relu(-y))  # what the answer rounds to 0 is not below it, as in TensorFlow
    return (g * ((1.0 - below) * _SELU_SCALE + below * (y + _SELU_SCALE * _SELU_ALPHA)),)


def tanh(node: Node, g: Any) -> Gradients:
    y = node.outputs[0]
    return (g * (1.0 - y * y),)


def sigmoid(node: Node, g: Any) -> Gradients:
    y = node.outputs[0]
    return (g * (y * (1.0 - y)),)


def softplus_forward(node: Node) -> Gradients:
    import tensorflow as tf

    x = node.inputs[0]
    return (tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),)


def softplus(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (g * tf.sigmoid(node.inputs[0]),)


def softsign_forward(node: Node) -> Gradients:
    import tensorflow as tf

    return (node.inputs[0] / (1.0 + tf.abs(node.inputs[0])),)


def softsign(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    d = 1.0 + tf.abs(node.inputs[0])
    return (g / (d * d),)


def erf_forward(node: Node) -> Gradients:
    """Rational approximation of erf over [-4, 4], error below 2e-7: TFLite has no ERF (Eigen's `generic_fast_erf`)."""
    import tensorflow as tf

    x = tf.minimum(tf.maximum(node.inputs[0], -4.0), 4.0)
    square = x * x
    p: Any = _ERF_P[0]
    for c in _ERF_P[1:]:
        p = p * square + c
    q: Any = _ERF_Q[0]
    for c in _ERF_Q[1:]:
        q = q * square + c
    return (x * p / q,)


def erf(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    x = node.inputs[0]
    return (g * (float(2.0 / np.sqrt(np.pi)) * tf.exp(-x * x)),)


def erfc_forward(node: Node) -> Gradients:
    return (1.0 - erf_forward(node)[0],)


def erfc(node: Node, g: Any) -> Gradients:
    return erf(node, -g)
