"""Editing a ``.tflite`` of one subgraph: read to objects, take a slice, write what is used and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from export.tflite.graph import Artifact, read_graph
from fl_mobile.errors import VerifyError

PARSE_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError)
NO_TENSOR = -1  # an optional input that is left out, such as the bias of a dense layer


def read_model(artifact: Artifact) -> Any:
    """Returns ``artifact`` as a ``ModelT`` of ``schema_py_generated``.

    Raises:
        VerifyError: It is damaged, or holds loops or branches, whose bodies are subgraphs of their own.
    """
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    data = read_graph(artifact).data  # whose lengths were checked: the object reader trusts them, and reads more
    try:
        model = read_model_from_bytearray(bytearray(data))
    except PARSE_ERRORS as error:
        raise VerifyError(f"TFLite flatbuffer of {len(data)} bytes is damaged ({type(error).__name__})") from error
    if len(model.subgraphs) != 1:
        raise VerifyError(f"the artifact has {len(model.subgraphs)} subgraphs (loops or branches), expected one")
    return model


def write_model(model: Any) -> bytes:
    """Returns the flatbuffer of ``model`` without tensors, buffers and operation codes that nothing uses."""
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray

    return bytes(convert_object_to_bytearray(_compact(model)))


def op_name(model: Any, operator: Any) -> str:
    """Returns the operation's name in the schema, e.g. ``"CONV_2D"``."""
    from ai_edge_litert.tools.flatbuffer_utils import opcode_to_name

    return str(opcode_to_name(model, operator.opcodeIndex))


def activations(model: Any, indices: Sequence[int]) -> list[int]:
    """Returns the tensors of ``indices`` that are computed or fed, leaving out constants and absent ones."""
    tensors = model.subgraphs[0].tensors
    return [int(i) for i in indices if i != NO_TENSOR and not is_constant(model, tensors[i])]


def all_activations(model: Any) -> list[int]:
    """Returns the tensors that are computed or fed, rising."""
    return sorted({i for op in model.subgraphs[0].operators for i in activations(model, [*op.inputs, *op.outputs])})


def is_constant(model: Any, tensor: Any) -> bool:
    """Returns whether the values of ``tensor`` are stored in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def slice_model(model: Any, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """Returns a model that computes tensors ``outputs`` from tensors ``inputs``, with only the operations it needs.

    Inputs of the whole graph that are needed as well become inputs too, after ``inputs``; those of ``inputs`` that
    nothing needs are left out.
    """
    graph = model.subgraphs[0]
    needed, kept = set(outputs), []
    for operator in reversed(graph.operators):
        if any(int(out) in needed and int(out) not in inputs for out in operator.outputs):
            kept.append(operator)
            needed |= {int(i) for i in operator.inputs if i != NO_TENSOR}
    part, body = copy(model), copy(graph)
    body.operators = kept[::-1]
    ends = [*inputs, *(int(i) for i in graph.inputs if int(i) not in inputs)]
    body.inputs = np.array([i for i in ends if i in needed], np.int32)
    body.outputs = np.array(outputs, np.int32)
    part.subgraphs, part.signatureDefs, part.metadata, part.metadataBuffer = [body], None, None, None
    return part


def alone(model: Any, operators: Sequence[Any]) -> tuple[Any, list[dict[int, int]]]:
    """Returns a model in which no operation reads what another computed, to be sliced (`slice_model`).

    With it, for each operation, activation it reads → the tensor that stands for it and that nothing computes.
    """
    part, body = copy(model), copy(model.subgraphs[0])
    body.tensors, body.operators, ends = list(body.tensors), [], []
    for operator in operators:
        own = copy(operator)
        stands = {index: len(body.tensors) + n for n, index in enumerate(dict.fromkeys(activations(model, own.inputs)))}
        body.tensors += [copy(body.tensors[index]) for index in stands]
        own.inputs = np.array([stands.get(int(i), int(i)) for i in own.inputs], np.int32)
        body.operators.append(own)
        ends.append(stands)
    part.subgraphs = [body]
    return part, ends


def prune_dead_operations(graph: Any) -> None:
    """Removes operations whose results nothing uses."""
    needed, kept = {int(i) for i in graph.outputs}, []
    for operator in reversed(graph.operators):
        if any(int(out) in needed for out in operator.outputs):
            kept.append(operator)
            needed |= {int(i) for i in operator.inputs}
    graph.operators = kept[::-1]


def _compact(model: Any) -> Any:
    """Returns a copy of ``model`` that shares data with it, renumbered."""
    made, graph = copy(model), copy(model.subgraphs[0])
    ends = [graph.inputs, graph.outputs, *(side for op in graph.operators for side in (op.inputs, op.outputs))]
    used = sorted({int(i) for side in ends for i in side} - {NO_TENSOR})
    tensor_at = {old: new for new, old in enumerate(used)} | {NO_TENSOR: NO_TENSOR}
    codes = sorted({op.opcodeIndex for op in graph.operators})
    code_at = {old: new for new, old in enumerate(codes)}
    buffers = _Buffers(model)
    graph.tensors = [buffers.moved(graph.tensors[old]) for old in used]
    graph.operators = [_renumbered(op, code_at, tensor_at) for op in graph.operators]
    graph.inputs, graph.outputs = (_renumber(side, tensor_at) for side in ends[:2])
    made.operatorCodes = [model.operatorCodes[old] for old in codes]
    made.signatureDefs = [_moved_signature(s, tensor_at) for s in model.signatureDefs or []]
    made.metadata = [buffers.moved(entry) for entry in model.metadata or []]
    made.subgraphs, made.buffers, made.metadataBuffer = [graph], buffers.kept, None
    return made


class _Buffers:
    """The buffers that are still used; number 0 is the empty one that every computed tensor names."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._at = {0: 0}
        self.kept = [model.buffers[0]]

    def moved(self, holder: Any) -> Any:
        """Returns a copy of a tensor or metadata entry that names its buffer by the new number."""
        old = holder.buffer if is_constant(self._model, holder) else 0
        if old not in self._at:
            self._at[old] = len(self.kept)
            self.kept.append(self._model.buffers[old])
        copied = copy(holder)
        copied.buffer = self._at[old]
        return copied


def _renumber(indices: Sequence[int], at: dict[int, int]) -> np.ndarray:
    return np.array([at[int(i)] for i in indices], np.int32)


def _renumbered(operator: Any, code_at: dict[int, int], tensor_at: dict[int, int]) -> Any:
    copied = copy(operator)
    copied.opcodeIndex = code_at[operator.opcodeIndex]
    copied.inputs, copied.outputs = (_renumber(ends, tensor_at) for ends in (operator.inputs, operator.outputs))
    copied.intermediates = None  # scratch tensors of the calibrator's; kernels make their own
    return copied


def _moved_signature(signature: Any, tensor_at: dict[int, int]) -> Any:
    moved = copy(signature)
    for side in ("inputs", "outputs"):
        entries = [copy(entry) for entry in getattr(signature, side)]
        for entry in entries:
            entry.tensorIndex = tensor_at[entry.tensorIndex]
        setattr(moved, side, entries)
    return moved
