"""What a ``.tflite`` file really holds, read from its flatbuffer without running it.

The schema is the one ``ai-edge-litert`` ships. Its generated accessors trust the bytes, so every length is checked
against the file before it is walked and every failure is a ``VerifyError``: this module may be given any bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

from fl_mobile.errors import VerifyError

MAGIC = b"TFL3"
# Flatbuffer offsets are 32 bits signed; larger models keep tensors outside and are not made by this package.
MAX_BYTES = 2**31 - 1

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
_PARSE_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError)

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
"""Operations that change how numbers are stored, and compute nothing."""


@dataclass(frozen=True)
class TensorInfo:
    """One end of a signature. ``real value = scale · (stored − zero_point)``; scale 0 means not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Signature:
    """A named entry point with its tensors in the order of the graph's own inputs and outputs."""

    key: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Graph:
    """One ``.tflite`` file and what was read from it. Hand this on: walking a file of megabytes takes its time.

    Attributes:
        data: The file.
        ops: Operation names in execution order, all subgraphs; custom ones as ``CUSTOM:<name>``.
        float_ops: Names of those that compute on floats, sorted: not of those that only convert.
        signatures: Named entry points.
        tensors: Number of tensors.
        weights: Number of stored model weights: constants that are float or quantised. Shape vectors, axes and
            the like are plain integers and do not count.
        description: The producer's note.
    """

    data: bytes = field(repr=False)
    ops: tuple[str, ...]
    float_ops: tuple[str, ...]
    signatures: tuple[Signature, ...]
    tensors: int
    weights: int
    description: str

    @property
    def file_bytes(self) -> int:
        """Length of the file."""
        return len(self.data)

    @property
    def foreign_ops(self) -> tuple[str, ...]:
        """Operations that no plain runtime has: custom and Flex ones."""
        return tuple(sorted({op for op in self.ops if op.startswith("CUSTOM:")}))

    def signature(self, key: str) -> Signature:
        """Returns the signature called ``key``.

        Raises:
            VerifyError: The file has no such signature.
        """
        for signature in self.signatures:
            if signature.key == key:
                return signature
        found = ", ".join(s.key for s in self.signatures) or "none"
        raise VerifyError(f"the artifact has no signature {key!r} (found: {found}). Export it again.")


Artifact = bytes | Graph
"""A ``.tflite`` file: its bytes, or what was read from them already."""


def read_graph(artifact: Artifact) -> Graph:
    """Returns what is in ``artifact``; a ``Graph`` is returned as it is.

    Raises:
        VerifyError: It is not a well-formed TFLite flatbuffer.
    """
    return artifact if isinstance(artifact, Graph) else _read(artifact)


def _read(data: bytes) -> Graph:
    if len(data) > MAX_BYTES:
        raise VerifyError(f"a TFLite flatbuffer is at most {MAX_BYTES} bytes, this one has {len(data)}")
    if len(data) < 8 or data[4:8] != MAGIC:
        raise VerifyError(f"not a TFLite flatbuffer: expected {MAGIC!r} at byte 4 of {len(data)}, found {data[4:8]!r}")
    from ai_edge_litert import schema_py_generated as schema

    try:
        return _summarise(schema.Model.GetRootAs(data, 0), data)
    except _PARSE_ERRORS as error:
        raise VerifyError(
            f"TFLite flatbuffer of {len(data)} bytes is damaged or cut short ({type(error).__name__}: {error})"
        ) from error


def _summarise(model: Any, data: bytes) -> Graph:
    limit = len(data)
    names = [_op_name(code) for code in _vector(model.OperatorCodes, model.OperatorCodesLength(), limit)]
    buffers = [_buffer_bytes(b, data) for b in _vector(model.Buffers, model.BuffersLength(), limit)]
    subgraphs = list(_vector(model.Subgraphs, model.SubgraphsLength(), limit))
    if not subgraphs:
        raise ValueError("no subgraph")
    tensors = [list(_vector(g.Tensors, g.TensorsLength(), limit)) for g in subgraphs]
    called = [
        (names[op.OpcodeIndex()], op, group)
        for g, group in zip(subgraphs, tensors, strict=True)
        for op in _vector(g.Operators, g.OperatorsLength(), limit)
    ]
    signatures = tuple(
        _read_signature(s, subgraphs[s.SubgraphIndex()], tensors[s.SubgraphIndex()], limit)
        for s in _vector(model.SignatureDefs, model.SignatureDefsLength(), limit)
    )
    return Graph(
        data=data,
        ops=tuple(name for name, _, _ in called),
        float_ops=tuple(sorted({name for name, op, group in called if _computes_on_floats(name, op, group, limit)})),
        signatures=signatures,
        tensors=sum(len(group) for group in tensors),
        weights=sum(_weights(t, buffers, limit) for group in tensors for t in group),
        description=(model.Description() or b"").decode(),
    )


def _vector(item: Callable[[int], Any], length: int, limit: int) -> Iterator[Any]:
    """Walks a vector of offsets, 4 bytes each, so a longer one than the file is a lie."""
    if length * 4 > limit:
        raise ValueError(f"vector of {length} entries in {limit} bytes")
    return (item(index) for index in range(length))


def _buffer_bytes(buffer: Any, data: bytes) -> int:
    if buffer.Offset() > 1:
        raise ValueError("tensor data outside the flatbuffer")
    length = int(buffer.DataLength())
    if length:
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        if start < 0 or start + length > len(data):
            raise ValueError(f"tensor data of {length} bytes at {start}")
    return length


def _op_name(code: Any) -> str:
    builtin = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    name = _builtin_ops().get(builtin)
    if name is None:
        raise ValueError(f"operation code {builtin} is not in the schema")
    return f"CUSTOM:{(code.CustomCode() or b'').decode()}" if name == "CUSTOM" else name


def _read_signature(entry: Any, graph: Any, tensors: list[Any], limit: int) -> Signature:
    def ends(maps: Iterator[Any], order: Iterator[Any]) -> tuple[TensorInfo, ...]:
        place = {int(index): at for at, index in enumerate(order)}
        listed = sorted(maps, key=lambda m: place.get(m.TensorIndex(), len(place)))
        return tuple(_tensor_info(m.Name().decode(), tensors[m.TensorIndex()], limit) for m in listed)

    return Signature(
        key=entry.SignatureKey().decode(),
        inputs=ends(
            _vector(entry.Inputs, entry.InputsLength(), limit), _vector(graph.Inputs, graph.InputsLength(), limit)
        ),
        outputs=ends(
            _vector(entry.Outputs, entry.OutputsLength(), limit), _vector(graph.Outputs, graph.OutputsLength(), limit)
        ),
    )


def _tensor_info(name: str, tensor: Any, limit: int) -> TensorInfo:
    quantization = tensor.Quantization()
    scaled = quantization is not None and quantization.ScaleLength() == 1
    return TensorInfo(
        name=name,
        shape=_shape(tensor, limit),
        dtype=_dtype(tensor),
        scale=float(quantization.Scale(0)) if scaled else 0.0,
        zero_point=int(quantization.ZeroPoint(0)) if scaled and quantization.ZeroPointLength() else 0,
    )


def _computes_on_floats(name: str, op: Any, tensors: list[Any], limit: int) -> bool:
    ends = [*_vector(op.Inputs, op.InputsLength(), limit), *_vector(op.Outputs, op.OutputsLength(), limit)]
    return name not in CONVERSIONS and any(_dtype(tensors[end]) in _FLOATS for end in ends if end >= 0)


def _weights(tensor: Any, buffers: list[int], limit: int) -> int:
    stored = buffers[tensor.Buffer()]
    if not stored:
        return 0
    quantization = tensor.Quantization()
    quantised = quantization is not None and quantization.ScaleLength() > 0
    if not quantised and _dtype(tensor) not in _FLOATS:
        return 0
    return prod(_shape(tensor, limit))


def _shape(tensor: Any, limit: int) -> tuple[int, ...]:
    return tuple(int(dim) for dim in _vector(tensor.Shape, tensor.ShapeLength(), limit))


def _dtype(tensor: Any) -> str:
    name = _dtypes().get(tensor.Type())
    if name is None:
        raise ValueError(f"tensor type {tensor.Type()} is not in the schema")
    return name


@lru_cache(maxsize=1)
def _builtin_ops() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


@lru_cache(maxsize=1)
def _dtypes() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
