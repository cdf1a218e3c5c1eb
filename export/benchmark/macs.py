"""Multiply-accumulate operations of one inference, counted from the flatbuffer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from export.tflite.editing import PARSE_ERRORS, op_name, read_model
from export.tflite.graph import Artifact, read_graph
from fl_mobile.errors import VerifyError

Shape = tuple[int, ...]

# Shapes of the first input, the weights and the result → multiply-accumulates. Weights are stored with the output
# channel first, except depthwise ones (1, height, width, channels). Everything else adds none.
_MACS: dict[str, Callable[[Shape, Shape, Shape], int]] = {
    "CONV_2D": lambda x, kernel, y: prod(y) * prod(kernel[1:]),
    "CONV_3D": lambda x, kernel, y: prod(y) * prod(kernel[:-1]),
    "DEPTHWISE_CONV_2D": lambda x, kernel, y: prod(y) * prod(kernel[1:3]),
    "FULLY_CONNECTED": lambda x, kernel, y: prod(y) * kernel[-1],
    "BATCH_MATMUL": lambda x, other, y: prod(y) * x[-1],
}


def count_macs(artifact: Artifact) -> int | None:
    """Returns the multiply-accumulates of one inference of ``artifact``.

    None when that depends on data: the artifact holds loops or branches.

    Raises:
        VerifyError: It is damaged.
    """
    graph = read_graph(artifact)
    if any(op in ("WHILE", "IF", "CALL_ONCE") for op in graph.ops):
        return None
    try:
        return _count(read_model(graph))
    except PARSE_ERRORS as error:
        raise VerifyError(f"an operation of the artifact lacks a tensor or a shape ({type(error).__name__})") from error


def _count(model: Any) -> int:
    total = 0
    for operator in model.subgraphs[0].operators:
        name = op_name(model, operator)
        if name == "TRANSPOSE_CONV":  # its inputs are: result shape, weights, image; every pixel meets every weight
            image, kernel = (_shape(model, operator.inputs[i]) for i in (2, 1))
            total += prod(image[:-1]) * prod(kernel)
        elif name in _MACS:
            x, weights = (_shape(model, operator.inputs[i]) for i in (0, 1))
            total += _MACS[name](x, weights, _shape(model, operator.outputs[0]))
    return total


def _shape(model: Any, index: int) -> Shape:
    return tuple(int(dim) for dim in model.subgraphs[0].tensors[index].shape)
