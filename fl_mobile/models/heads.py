"""What a model's outputs are: logits, or probabilities out of a softmax or a sigmoid. Read, not guessed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_mobile.errors import ModelError

_PASS_THROUGH = frozenset({"Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "StopGradient", "PreventGradient"})
"""Operations that only hand a tensor on, between a model's last activation and its output."""

_LINEAR = frozenset({"BiasAdd", "MatMul", "BatchMatMulV2", "Conv2D", "Placeholder"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_DRAWS = 8


def head_of(model: Any, probe: np.ndarray) -> str:
    """Returns ``"softmax"``, ``"sigmoid"`` or ``"logits"``: what the outputs of a classifier are.

    Found in the traced graph. Where the last operation does not tell (a softmax written out by hand, a hard sigmoid),
    the model answers with several sets of drawn weights: what stays a distribution, or inside [0, 1], whatever the
    weights are, is probabilities.

    Args:
        model: A built Keras model with one output ``(n, …, outputs)``; its weights are as they were afterwards.
        probe: A few examples it takes.

    Raises:
        ModelError: The model has several outputs, or something other than a row of numbers for an example.
    """
    import tensorflow as tf

    inputs = probe.astype(np.float32) if probe.dtype == np.uint8 else probe
    spec = tf.TensorSpec((None, *inputs.shape[1:]), tf.as_dtype(inputs.dtype))
    concrete = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(spec)
    outputs = tf.nest.flatten(concrete.structured_outputs)
    check_answers(model, [tuple(out.shape) for out in outputs])
    last = last_operation(concrete.graph.as_graph_def(), concrete.outputs[0].op.name)
    if last == "Softmax" and outputs[0].shape[-1] == 1:
        raise ModelError(f"model '{model.name}': a softmax over one output is always 1: use Activation('sigmoid')")
    if last in ("Softmax", "Sigmoid"):
        return last.lower()
    return "logits" if last in _LINEAR else _head_by_drawing(model, inputs)


def check_answers(model: Any, shapes: list[tuple[int | None, ...]]) -> None:
    """Raises `ModelError` unless a model that answers in these shapes gives one tensor of numbers for an example."""
    if len(shapes) != 1:
        raise ModelError(
            f"model '{model.name}' has {len(shapes)} outputs {shapes}, training takes one:"
            " federate keras.Model(model.input, model.outputs[0])"
        )
    if len(shapes[0]) < 2:
        raise ModelError(
            f"model '{model.name}' answers {shapes[0]} for a batch, training takes scores or numbers for every example,"
            " (batch, outputs): end in a Dense layer"
        )


def last_operation(graph: Any, name: str) -> str:
    """Returns the type of the operation that computes ``name``, seen through casts, reshapes and calls."""
    functions = {function.signature.name: function for function in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    index = 0
    while name in nodes:
        node = nodes[name]
        if node.op in _CALLS and (called := functions.get(node.attr["f"].func.name)):
            nodes = {inner.name: inner for inner in called.node_def}
            source = called.ret[called.signature.output_arg[index].name]
        elif node.op in _PASS_THROUGH:
            source = node.input[0]
        else:
            return str(node.op)
        name, index = source.split(":")[0].lstrip("^"), _index_of(source)
    return "Placeholder"


def _index_of(source: str) -> int:
    last = source.rpartition(":")[2]
    return int(last) if ":" in source and last.isdigit() else 0


def _head_by_drawing(model: Any, inputs: np.ndarray) -> str:
    """Returns the head of a model whose last operation does not tell it."""
    rng, before = np.random.default_rng(0), [v.numpy() for v in model.weights]
    answers = []
    try:
        for _ in range(_DRAWS):
            for variable in (v for v in model.weights if "float" in str(v.dtype)):
                drawn = rng.standard_normal(variable.shape)
                variable.assign(drawn if variable.trainable else np.abs(drawn) + 0.1)  # a variance is above 0
            out = np.asarray(model(inputs, training=False), np.float64)
            answers += [out] if np.isfinite(out).all() else []
    finally:
        for variable, value in zip(model.weights, before, strict=True):
            variable.assign(value)
    every = np.concatenate(answers) if answers else np.full((1, 2), np.nan)
    if not ((every >= 0) & (every <= 1)).all():
        return "logits"
    if every.shape[-1] > 1 and np.allclose(every.sum(axis=-1), 1.0, atol=1e-3):
        return "softmax"
    return "sigmoid" if np.ptp(every) > 0 else "logits"
