"""Cross-entropies whose kernels TFLite lacks, from LOG_SOFTMAX and ONE_HOT, and softmax itself."""

from __future__ import annotations

from typing import Any

from export.training.gradients.rule import Gradients, Node, shape_of


def softmax(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    y = node.outputs[0]
    return (y * (g - tf.reduce_sum(g * y, -1, keepdims=True)),)


def log_softmax(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (g - tf.exp(node.outputs[0]) * tf.reduce_sum(g, -1, keepdims=True),)


def sparse_cross_entropy_forward(node: Node) -> Gradients:
    """Outputs loss ``float32[n]`` and its gradient ``float32[n, classes]``, as the TensorFlow operation does."""
    import tensorflow as tf

    logits, labels = node.inputs
    one_hot = tf.one_hot(tf.cast(labels, tf.int32), shape_of(logits)[-1])
    return _cross_entropy(logits, one_hot)


def cross_entropy_forward(node: Node) -> Gradients:
    return _cross_entropy(*node.inputs)


def _cross_entropy(logits: Any, labels: Any) -> Gradients:
    import tensorflow as tf

    logs = tf.nn.log_softmax(logits)
    return -tf.reduce_sum(labels * logs, -1), tf.exp(logs) * tf.reduce_sum(labels, -1, keepdims=True) - labels


def sparse_cross_entropy(node: Node, g: Any, unused: Any = None) -> Gradients:
    import tensorflow as tf

    return (tf.expand_dims(g, -1) * node.outputs[1], None)


def cross_entropy(node: Node, g: Any, unused: Any = None) -> Gradients:
    """Gradient of the logits; labels are data."""
    if node.needs[1]:
        raise ValueError("labels that depend on the weights (distillation into itself) are not supported")
    return sparse_cross_entropy(node, g)
