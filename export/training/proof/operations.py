"""Activations before and after conversion: the converter must not lose one, whatever it fuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from export.training.gradients.products import FENCE

KINDS = {
    "Relu": "RELU",
    "Relu6": "RELU",
    "LeakyRelu": "LEAKY_RELU",
    "Elu": "ELU",
    "Tanh": "TANH",
    "Sigmoid": "LOGISTIC",
    "Softmax": "SOFTMAX",
    "LogSoftmax": "LOG_SOFTMAX",
    "Log": "LOG",
    "Sin": "SIN",
    "Cos": "COS",
    "Ceil": "CEIL",
}
"""TensorFlow operation → what is counted. Sums, products and roots are not here: they are rightly merged."""

STANDS_FOR = {"RELU": ("RELU", 1), "RELU6": ("RELU", 1), "RELU_N1_TO_1": ("RELU", 1), "RELU_0_TO_1": ("RELU", 1)} | {
    "HARD_SWISH": ("RELU", 1),
    "PRELU": ("RELU", 2),
}
"""Builtin → what it is counted as, and how many it replaces."""

_ANY_ZERO = ("Mul", "MatMul", "BatchMatMulV2")
_MOVES = ("Identity", "LeakyRelu", "Neg", "Reshape", "Transpose", "Sum", "Slice", "Pad", "BroadcastTo")
"""Operations that make zeros of one zero, and of zeros."""

FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
"""``ActivationFunctionType`` of the schema: activations inside another operation."""


def lost_operations(signatures: Mapping[str, Any], tflite: bytes) -> list[str]:
    """Returns what the file has less of than the traced functions it was made of, in words.

    Args:
        signatures: Name → concrete function.
        tflite: What they were converted to.
    """
    after = _after(tflite)
    found = []
    for name, function in signatures.items():
        want, have = _before(function.graph), after[name]
        for kind, count in sorted(want.items()):
            if have[kind] < count:
                found.append(f"{name} has {have[kind]} {kind} of {count}")
    return found


def _before(graph: Any) -> Counter[str]:
    """Counts builtins in a traced function: what reaches an output or a variable, equal computations once."""
    seen: dict[str, str] = {}
    counted: set[tuple[str, str]] = set()
    needed = _needed(graph)
    for op in graph.get_operations():
        if op.name not in needed:
            continue
        if op.type == "Identity" or (op.type == "LeakyRelu" and op.get_attr("alpha") == FENCE):
            seen[op.outputs[0].name] = seen.get(op.inputs[0].name, op.inputs[0].name)
            continue
        key = _key(op, seen)
        for index, tensor in enumerate(op.outputs):
            seen[tensor.name] = f"{key}:{index}"
        if op.type in KINDS and needed[op.name]:
            counted.add((KINDS[op.type], key))
    return Counter(kind for kind, _ in counted)


def _needed(graph: Any) -> dict[str, bool]:
    """Returns the names of operations that reach an output or change a variable, and whether each depends on data."""
    wanted = [t.op for t in graph.outputs] + [op for op in graph.get_operations() if op.type.startswith("Assign")]
    names: set[str] = set()
    zero = _zeros(graph)
    while wanted:
        op = wanted.pop()
        if op.name not in names:
            names.add(op.name)
            if op.name not in zero:
                wanted.extend(_in_front(t.op, op) for t in op.inputs)
    varies: dict[str, bool] = {}
    for op in graph.get_operations():
        if op.name in names:
            source = op.type in ("Placeholder", "ReadVariableOp", "VarHandleOp")
            varies[op.name] = source or any(varies.get(t.op.name, False) for t in op.inputs)
    return varies


def _in_front(op: Any, reader: Any) -> Any:
    """Returns what a reader needs: the largest of a softmax is the largest of what it is made of."""
    while reader.type == "ArgMax" and op.type in ("Softmax", "LogSoftmax", "Identity"):
        op = op.inputs[0].op
    return op


def _zeros(graph: Any) -> set[str]:
    """Returns the names of operations whose result is zero whatever the data, as the first state of an LSTM is.

    The converter folds them away with all they are computed from.
    """
    import tensorflow as tf

    found: set[str] = set()
    for op in graph.get_operations():
        inputs = [t.op.name in found for t in op.inputs]
        if (op.type in _ANY_ZERO and any(inputs)) or (op.type in _MOVES and inputs and inputs[0]):
            found.add(op.name)
        elif len(op.outputs) == 1 and op.outputs[0].dtype.is_floating:
            value = tf.get_static_value(op.outputs[0])
            if value is not None and not np.any(value):
                found.add(op.name)
    return found


def _key(op: Any, seen: Mapping[str, str]) -> str:
    """Returns equal text for operations that compute the same."""
    if op.type in ("Placeholder", "VarHandleOp") or op.type.startswith("Assign"):
        return op.name
    inputs = [seen.get(t.name, t.name) for t in op.inputs]
    if op.type in ("Relu", "Relu6") and inputs and inputs[0].startswith(f"{op.type}("):
        return inputs[0].rpartition(":")[0]  # a relu of a relu
    attributes = {k: v.SerializeToString() for k, v in sorted(op.node_def.attr.items()) if not k.startswith("_")}
    text = f"{op.type}({','.join(inputs)};{attributes})"
    return f"{op.type}(#{hash(text)})"


def _after(tflite: bytes) -> dict[str, Counter[str]]:
    """Counts builtins, alone or fused, by signature."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    # The accessors, not the object form: unpacking a program takes as long as converting it.
    model = schema.Model.GetRootAs(tflite, 0)
    rows = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    codes = [names[max(c.BuiltinCode(), c.DeprecatedBuiltinCode())] for c in rows]
    found: dict[str, Counter[str]] = {}
    for signature in (model.SignatureDefs(i) for i in range(model.SignatureDefsLength())):
        graph, count = model.Subgraphs(signature.SubgraphIndex()), Counter[str]()
        for op in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            options = schema.BuiltinOptionsCreator(op.BuiltinOptionsType(), op.BuiltinOptions())
            fused = FUSED.get(getattr(options, "fusedActivationFunction", 0))
            for builtin in filter(None, (codes[op.OpcodeIndex()], fused)):
                kind, times = STANDS_FOR.get(builtin, (builtin, 1))
                count[kind] += times
        found[signature.SignatureKey().decode()] = count
    return found
