"""Selective quantisation: an integer artifact with chosen layers computed in float32, or on 16-bit activations.

```
… ─▶ int8 ─▶ DEQUANTIZE ─▶ float operation, float weights ─▶ QUANTIZE ─▶ int8 ─▶ …
… ─▶ int8 ─▶ DEQUANTIZE, QUANTIZE ─▶ int16 operation, int8 weights ─▶ QUANTIZE ─▶ int8 ─▶ …
```
Neighbours that are both kept hand each other what they compute; a layer kept in float that reads the quantised frame
reads the frame itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from export.layers.names import FloatTwin, belongs
from export.layers.pairs import OpPair, paired
from export.model.serving import SIGNATURE
from export.tflite.editing import NO_TENSOR, is_constant, op_name, prune_dead_operations, read_model, write_model
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
        if _types(exact, pair.exact) != _types(quantized, pair.quantized) and _is_of(pair, twin, layers)
    }
    return _grafted(before=before, source=exact, target=quantized, kept=kept, layers=layers)


def keep_in_int16(artifact: Artifact, wide: Artifact, twin: FloatTwin, layers: Sequence[str]) -> Graph:
    """Returns the ``int8`` ``artifact`` with every operation of ``layers`` taken from its ``int16x8`` sibling.

    The kernels are 8-bit in both, so the file hardly grows.

    Args:
        wide: The same weights with 16-bit activations.
        twin: Float32 artifact of the same weights.
        layers: Names that ``check_layers`` accepted.

    Raises:
        ExportError: The artifacts do not hold the same operations.
    """
    before = read_graph(artifact)
    try:
        source, quantized = read_model(wide), read_model(before)
        ours, theirs = (paired(twin.model, model) for model in (quantized, source))
    except VerifyError as error:
        raise ExportError(f"layers cannot be kept on 16-bit activations: {error}") from error
    kept = {
        id(mine.quantized): other.quantized
        for mine, other in zip(ours, theirs, strict=True)
        if _types(source, other.quantized) != _types(quantized, mine.quantized) and _is_of(mine, twin, layers)
    }
    return _grafted(before=before, source=source, target=quantized, kept=kept, layers=layers)


def _is_of(pair: OpPair, twin: FloatTwin, layers: Sequence[str]) -> bool:
    return any(belongs(path, name) for path in twin.paths(pair.tensor) for name in layers)


def _grafted(before: Graph, source: Any, target: Any, kept: dict[int, Any], layers: Sequence[str]) -> Graph:
    _Graft(source, target).replace(kept)
    made = read_graph(write_model(target))
    was, now = (graph.signature(SIGNATURE) for graph in (before, made))
    if was != now:
        raise ExportError(f"keeping {', '.join(layers)} out changed the signature from {was} to {now}")
    return made


def _types(model: Any, operator: Any) -> list[int]:
    tensors = model.subgraphs[0].tensors
    return [tensors[i].type for ends in (operator.inputs, operator.outputs) for i in ends if i != NO_TENSOR]


def _scales(tensor: Any) -> tuple[float, ...]:
    """Returns what a tensor is multiplied by, empty when it is not quantised."""
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return () if scale is None else tuple(map(float, scale))


def _float_tensor() -> Any:
    """Returns a tensor that says nothing but that it holds float32."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.type = schema.TensorType.FLOAT32
    return tensor


class _Graft:
    """Moves operations of one ``ModelT`` into another; the other's is changed."""

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target
        self._graph = target.subgraphs[0]
        self._constants: dict[int, int] = {}
        # tensor of the target and scale → its values as kept operations compute them
        self._kept: dict[tuple[int, tuple[float, ...]], int] = {}
        self._quantized_from = {
            int(op.outputs[0]): int(op.inputs[0]) for op in self._graph.operators if op_name(target, op) == "QUANTIZE"
        }
        self._done: list[Any] = []
        self._float = _float_tensor()

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
        for end, made in zip(map(int, old.outputs), map(int, new.outputs), strict=True):
            if made != end:
                # Dead where only kept layers read it; prune_dead_operations takes those away.
                self._convert("QUANTIZE", made, end)

    def _input(self, exact: int, old: int) -> int:
        if exact == NO_TENSOR:
            return NO_TENSOR
        tensor = self._source.subgraphs[0].tensors[exact]
        return self._constant(int(exact)) if is_constant(self._source, tensor) else self._wide_of(int(old), tensor)

    def _output(self, exact: int, old: int) -> int:
        like = self._source.subgraphs[0].tensors[exact]
        if self._graph.tensors[old].type == like.type:  # only the weights were quantised
            return int(old)
        made = self._like(self._graph.tensors[old], like, b"_kept")
        self._kept[int(old), _scales(like)] = made
        return made

    def _constant(self, exact: int) -> int:
        if exact not in self._constants:
            tensor = copy(self._source.subgraphs[0].tensors[exact])
            self._target.buffers.append(self._source.buffers[tensor.buffer])
            tensor.buffer = len(self._target.buffers) - 1
            self._constants[exact] = self._add(tensor)
        return self._constants[exact]

    def _wide_of(self, tensor: int, like: Any) -> int:
        """Returns ``tensor`` of the target as the kept operation reads it: type and scale of ``like``."""
        key = tensor, _scales(like)
        if key in self._kept:
            return self._kept[key]
        origin = next((made for (of, _), made in self._kept.items() if of == tensor), None)
        if origin is None:
            origin = self._quantized_from.get(tensor, tensor)
            if self._graph.tensors[origin].type == like.type:
                return origin
            if _scales(like):
                # Through float32: tf.lite and tflite-runtime have no kernel from 8 to 16 bits, LiteRT has.
                origin = self._wide_of(tensor, self._float)
        self._kept[key] = self._like(self._graph.tensors[origin], like, b"_read")
        self._convert("QUANTIZE" if _scales(like) else "DEQUANTIZE", origin, self._kept[key])
        return self._kept[key]

    def _like(self, old: Any, kept: Any, suffix: bytes) -> int:
        tensor = copy(old)
        tensor.type, tensor.buffer = kept.type, 0
        tensor.quantization = kept.quantization if _scales(kept) else None
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
