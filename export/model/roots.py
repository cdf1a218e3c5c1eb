"""Keeps the converter from making ``RSQRT`` of a root that may be taken of 0.

XNNPACK's kernel of it for PCs answers NaN for 0, where TensorFlow and the built-in kernel answer infinity
(ai-edge-litert 2.1). A black picture in front of ``UnitNormalization`` is all that it takes, and Keras answers zeros.
A root and a division say the same, and no constant is needed that float16 would round to 0.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np

_LARGER = ("AddV2", "Add", "Maximum")
_SAME = ("Identity", "StopGradient")
_SMALLEST = 2.0**-126  # of normal numbers


def part_roots(nodes: MutableSequence[Any]) -> None:
    """Turns reciprocal square roots into a root and a division that the converter leaves apart (TensorFlow 2.21).

    It fuses ``Rsqrt``, a power of −1/2, and whatever is divided by ``Sqrt``; it does not fuse division by a power of
    1/2. What has a positive constant added, as in normalisations, is left as it is.

    Args:
        nodes: The ``NodeDef`` messages of one function of a graph, changed in place.
    """
    for node, x in _roots(nodes):
        half = _constant(f"{node.name}_half", 0.5)
        below = _node(f"{node.name}_root", "Pow", x, f"{half.name}:output:0")
        nodes.extend([half, below])
        if node.op == "RealDiv":
            node.input[1] = f"{below.name}:z:0"
        elif node.op == "Rsqrt":
            node.op, node.input[:] = "Reciprocal", [f"{below.name}:z:0"]
        else:
            one = _constant(f"{node.name}_one", 1.0)
            nodes.append(one)
            node.op, node.input[:] = "RealDiv", [f"{one.name}:output:0", f"{below.name}:z:0"]


def has_roots(graph: Any) -> bool:
    """Returns whether `part_roots` would change anything in a ``GraphDef``."""
    return any(map(_roots, (graph.node, *(function.node_def for function in graph.library.function))))


def _roots(nodes: Sequence[Any]) -> list[tuple[Any, str]]:
    """Returns what divides by a square root, and the input that the root is taken of."""
    known, found = {node.name: node for node in nodes}, []
    for node in nodes:
        root = node if node.op == "Rsqrt" or _is_reciprocal_power(node, known) else _divisor(node, known)
        if root is not None and root.attr["T"].type == _float32() and not _is_positive(root.input[0], known):
            found.append((node, root.input[0]))
    return found


def _is_reciprocal_power(node: Any, known: Mapping[str, Any]) -> bool:
    exponent = _value(node.input[1], known) if node.op == "Pow" else None
    return exponent is not None and bool(np.all(exponent == -0.5))


def _divisor(node: Any, known: Mapping[str, Any]) -> Any:
    """Returns the square root that a node divides by, None of any other node."""
    below = _source(node.input[1], known) if node.op == "RealDiv" else None
    return below if below is not None and below.op == "Sqrt" else None


def _is_positive(name: str, known: Mapping[str, Any]) -> bool:
    source = _source(name, known)
    if source is None or source.op not in _LARGER:
        return False
    values = [value for value in (_value(part, known) for part in source.input) if value is not None]
    return any(bool(np.all(value >= _SMALLEST)) for value in values)


def _float32() -> int:
    from tensorflow.core.framework import types_pb2

    return int(types_pb2.DT_FLOAT)


def _constant(name: str, value: float) -> Any:
    import tensorflow as tf

    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = _float32()
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
    return node


def _node(name: str, op: str, *inputs: str) -> Any:
    import tensorflow as tf

    node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    node.attr["T"].type = _float32()
    return node


def _value(name: str, known: Mapping[str, Any]) -> np.ndarray | None:
    """Returns what a constant holds, None of anything else."""
    import tensorflow as tf

    source = _source(name, known)
    return None if source is None or source.op != "Const" else np.asarray(tf.make_ndarray(source.attr["value"].tensor))


def _source(name: str, known: Mapping[str, Any]) -> Any:
    """Returns the node that an input is computed by, None of an argument of the function."""
    node = known.get(name.lstrip("^").partition(":")[0])
    while node is not None and node.op in _SAME:
        node = known.get(node.input[0].partition(":")[0])
    return node
