"""Selective quantisation: an integer artifact with chosen layers computed in float32.

```
… ─▶ int8 ─▶ DEQUANTIZE ─▶ float operation, float weights ─▶ QUANTIZE ─▶ int8 ─▶ …
```
Neighbours that are both kept hand each other float; a kept layer that reads the quantised frame reads the frame itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from export.layers.flatbuffer import NO_TENSOR, is_constant, op_name, prune_dead_operations, read_model, write_model
from export.layers.names import FloatTwin, belongs
from export.layers.pairs import paired
from export.model.serving import SIGNATURE
from export.tflite.graph import Artifact, Graph, read_graph
from fl_mobile.errors import ExportError, VerifyError

# Least operation version that takes a stored type, by number in the schema (tflite/converter/tools/versioning/
# op_version.cc): INT8 is 9, INT16 is 7; uint8 needs version 1.
_VERSIONS = {"DEQUANTIZE": {9: 2, 7: 3}, "QUANTIZE": {7: 2}}


def keep_in_float(artifact: Artifact, twin: FloatTwin, layers: Sequence[str]) -> Graph:
    """Returns the quantised ``artifact`` with every operation of ``layers`` taken from its float32 twin.

    Args:
        twin: Float32 artifact of the same weights.
        layers: Names that ``check_layers`` accepted.

    Raises:
        ExportError: The two artifacts do not hold the same operations, or no operation of ``layers`` was quantised.
    """
    before = read_graph(artifact)
    try:
        exact, quantized = twin.model, read_model(before)
        pairs = paired(exact, quantized)
    except VerifyError as error:
        raise ExportError(f"layers cannot be kept in float: {error}") from error
    kept = {
        id(pair.quantized): pair.exact
        for pair in pairs
        if _types(exact, pair.exact) != _types(quantized, pair.quantized)
        and any(belongs(path, name) for path in twin.paths(pair.tensor) for name in layers)
    }
    _Graft(exact, quantized).replace(kept)
    made = read_graph(write_model(quantized))
    was, now = (graph.signature(SIGNATURE) for graph in (before, made))
    if was != now:
        raise ExportError(f"keeping {', '.join(layers)} in float changed the signature from {was} to {now}")
    return made


def _types(model: Any, operator: Any) -> list[int]:
    tensors = model.subgraphs[0].tensors
    return [tensors[i].type for ends in (operator.inputs, operator.outputs) for i in ends if i != NO_TENSOR]


class _Graft:
    """Moves operations of one ``ModelT`` into another; the other's is changed."""

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target
        self._graph = target.subgraphs[0]
        self._constants: dict[int, int] = {}
        self._floats: dict[int, int] = {}  # tensor of the target → its values in float32
        self._quantized_from = {
            int(op.outputs[0]): int(op.inputs[0]) for op in self._graph.operators if op_name(target, op) == "QUANTIZE"
        }
        self._done: list[Any] = []

    def replace(self, kept: dict[int, Any]) -> None:
        """Puts float operations in the place of those whose ``id`` is a key of ``kept``."""
        for operator in self._graph.operators:
            if id(operator) in kept:
                self._move(operator, kept[id(operator)])
            else:
                self._done.append(operator)
        self._graph.operators = self._done
        prune_dead_operations(self._graph)

    def _move(self, old: Any, exact: Any) -> None:
        new = copy(exact)
        new.opcodeIndex = self._code(self._source.operatorCodes[exact.opcodeIndex])
        new.inputs = np.array(
            [self._input(int(a), int(b)) for a, b in zip(exact.inputs, old.inputs, strict=True)], np.int32
        )
        new.outputs = np.array(
            [self._output(int(a), int(b)) for a, b in zip(exact.outputs, old.outputs, strict=True)], np.int32
        )
        self._done.append(new)
        for end in map(int, old.outputs):
            if end in self._floats:
                # Dead where only kept layers read it; prune_dead_operations takes those away.
                self._convert("QUANTIZE", self._floats[end], end)

    def _input(self, exact: int, old: int) -> int:
        if exact == NO_TENSOR:
            return NO_TENSOR
        tensor = self._source.subgraphs[0].tensors[exact]
        return self._constant(int(exact)) if is_constant(self._source, tensor) else self._float_of(int(old), tensor)

    def _output(self, exact: int, old: int) -> int:
        like = self._source.subgraphs[0].tensors[exact]
        if self._graph.tensors[old].type == like.type:  # only the weights were quantised
            return int(old)
        self._floats[int(old)] = self._float_like(self._graph.tensors[old], like, b"_float")
        return self._floats[int(old)]

    def _constant(self, exact: int) -> int:
        if exact not in self._constants:
            tensor = copy(self._source.subgraphs[0].tensors[exact])
            self._target.buffers.append(self._source.buffers[tensor.buffer])
            tensor.buffer = len(self._target.buffers) - 1
            self._constants[exact] = self._add(tensor)
        return self._constants[exact]

    def _float_of(self, tensor: int, like: Any) -> int:
        origin = self._quantized_from.get(tensor, tensor)
        if tensor not in self._floats and self._graph.tensors[origin].type == like.type:
            return origin
        if tensor not in self._floats:
            self._floats[tensor] = self._float_like(self._graph.tensors[origin], like, b"_dequantized")
            self._convert("DEQUANTIZE", origin, self._floats[tensor])
        return self._floats[tensor]

    def _float_like(self, old: Any, exact: Any, suffix: bytes) -> int:
        tensor = copy(old)
        tensor.type, tensor.quantization, tensor.buffer = exact.type, None, 0
        tensor.name = (old.name or b"") + suffix
        return self._add(tensor)

    def _add(self, tensor: Any) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _convert(self, name: str, source: int, target: int) -> None:
        from ai_edge_litert import schema_py_generated as schema

        stored = self._graph.tensors[source if name == "DEQUANTIZE" else target].type
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = _VERSIONS[name].get(stored, 1)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(code)
        operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
        self._done.append(operator)

    def _code(self, wanted: Any) -> int:
        key = (wanted.builtinCode, wanted.version)
        for index, code in enumerate(self._target.operatorCodes):
            if (code.builtinCode, code.version) == key:
                return index
        self._target.operatorCodes.append(wanted)
        return len(self._target.operatorCodes) - 1
