"""What a phone developer must know of a training program to judge whether it is feasible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from export.tflite.graph import read_graph
from export.training.contract import Contract
from export.training.measure import measure_apart

_WIDTHS = {0: 4, 2: 4, 3: 1, 4: 8, 6: 1}
"""TFLite tensor type (float32, int32, uint8, int64, bool) → bytes an element; schema.fbs."""

PRODUCTS = ("BATCH_MATMUL", "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class ProgramReport:
    """One program on this host.

    Attributes:
        model: Name.
        file_bytes: Length of the ``.tflite``.
        weights: Numbers that travel.
        operations: Builtin operation → how often ``train`` runs it.
        mflops_per_example: Of one training step, multiply and add counted as two, products only.
        state_bytes: Weights, optimizer state, anchors and corrections: what stays between steps.
        arena_bytes: Tensors of ``train`` that are alive at once, at most: the least an arena can be.
        measured: See `export.training.measure.measure`; host figures, not a phone's.
    """

    model: str
    file_bytes: int
    weights: int
    operations: Mapping[str, int]
    mflops_per_example: float
    state_bytes: int
    arena_bytes: int
    measured: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return asdict(self)


def report_on(folder: Path, tflite: bytes, contract: Contract, *, steps: int = 20) -> ProgramReport:
    """Returns the report of a program that `write_program` wrote to ``folder``; runs it in another process."""
    contract.check(tflite)
    read_graph(tflite)  # refuses damaged bytes before the schema's trusting accessors walk them
    operations, flops = train_operations(tflite)
    state, arena = train_memory(tflite)
    return ProgramReport(
        contract.model,
        len(tflite),
        sum(prod(w.shape) for w in contract.weights),
        operations,
        float(flops) / contract.batch_size / 1e6,
        *(state, arena),
        measure_apart(folder, steps=steps),
    )


def train_operations(tflite: bytes) -> tuple[dict[str, int], float]:
    """Returns how often ``train`` runs each operation, and the floating-point operations of its products."""
    _, graph, names = _train_graph(tflite)
    counts: Counter[str] = Counter()
    flops = 0.0
    for op in graph.operators:
        name = names[op.opcodeIndex]
        counts[name] += 1
        if name in PRODUCTS:
            shapes = [list(graph.tensors[i].shape) for i in (*op.inputs[:2], op.outputs[0])]
            flops += _flops(name, op, *shapes)
    return dict(sorted(counts.items())), flops


def train_memory(tflite: bytes) -> tuple[int, int]:
    """Returns bytes of the program's variables, and of the tensors of ``train`` that are alive at once, at most.

    Inputs and outputs live for the whole call, as the runtime's planner keeps them.
    """
    model, graph, names = _train_graph(tflite)
    sizes = [_bytes(tensor, model) for tensor in graph.tensors]
    operators = list(graph.operators)
    last = {int(i): at for at, op in enumerate(operators) for i in (*op.inputs, *op.outputs)}
    last |= dict.fromkeys(map(int, (*graph.inputs, *graph.outputs)), len(operators))
    ends: dict[int, list[int]] = {}
    for tensor, at in last.items():
        ends.setdefault(at, []).append(tensor)
    alive = most = sum(sizes[int(i)] for i in graph.inputs)
    state = 0
    for at, op in enumerate(operators):
        if names[op.opcodeIndex] == "ASSIGN_VARIABLE":
            state += _bytes(graph.tensors[int(op.inputs[1])], model)
        alive += sum(sizes[int(i)] for i in op.outputs)
        most = max(most, alive)
        alive -= sum(sizes[i] for i in ends.get(at, ()))
    return state, most


def _bytes(tensor: Any, model: Any) -> int:
    """Returns what a tensor takes in the arena: nothing if it is a constant of the file or a variable's handle."""
    data = model.buffers[tensor.buffer].data
    if data is not None and len(data):
        return 0
    return _WIDTHS.get(tensor.type, 0) * prod(int(n) for n in (tensor.shape if tensor.shape is not None else ()))


def _train_graph(tflite: bytes) -> tuple[Any, Any, list[str]]:
    """Returns the file, the subgraph of ``train``, and the name of every operator code."""
    from ai_edge_litert import schema_py_generated as schema

    known = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    index = next(s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"train")
    names = [known[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    return model, model.subgraphs[index], names


def _flops(name: str, op: Any, left: list[int], right: list[int], out: list[int]) -> float:
    if name == "BATCH_MATMUL":
        return 2.0 * prod(out) * left[-2 if op.builtinOptions.adjX else -1]
    if name == "FULLY_CONNECTED":
        return 2.0 * prod(out) * right[-1]
    if name == "DEPTHWISE_CONV_2D":
        return 2.0 * prod(out) * right[1] * right[2]
    return 2.0 * prod(out) * prod(right[1:])
