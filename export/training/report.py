"""What a phone developer must know of a training program to judge whether it is feasible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from export.graph import read_graph
from export.training.contract import Contract
from export.training.measure import CONTRACT, PROGRAM, measure_apart
from fl_mobile.files import write_atomic, write_json

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
        measured: See `export.training.measure.measure`; host figures, not a phone's.
    """

    model: str
    file_bytes: int
    weights: int
    operations: Mapping[str, int]
    mflops_per_example: float
    measured: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return asdict(self)


def write_program(folder: Path, tflite: bytes, contract: Contract) -> None:
    """Writes ``train.tflite`` and its contract ``train.json``, each whole or not at all."""
    write_atomic(folder / PROGRAM, tflite)
    write_json(folder / CONTRACT, contract.to_json())


def report_on(folder: Path, tflite: bytes, contract: Contract, *, steps: int = 20) -> ProgramReport:
    """Returns the report of a program that `write_program` wrote to ``folder``; runs it in another process."""
    contract.check(tflite)
    read_graph(tflite)  # refuses damaged bytes before the schema's trusting accessors walk them
    operations, flops = train_operations(tflite)
    return ProgramReport(
        contract.model,
        len(tflite),
        sum(prod(w.shape) for w in contract.weights),
        operations,
        flops / contract.batch_size / 1e6,
        measure_apart(folder, steps=steps),
    )


def train_operations(tflite: bytes) -> tuple[dict[str, int], float]:
    """Returns how often ``train`` runs each operation, and the floating-point operations of its products."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    index = next(s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"train")
    graph = model.subgraphs[index]
    counts: Counter[str] = Counter()
    flops = 0.0
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        counts[name] += 1
        if name in PRODUCTS:
            shapes = [list(graph.tensors[i].shape) for i in (*op.inputs[:2], op.outputs[0])]
            flops += _flops(name, op, *shapes)
    return dict(sorted(counts.items())), flops


def _flops(name: str, op: Any, left: list[int], right: list[int], out: list[int]) -> float:
    if name == "BATCH_MATMUL":
        return 2.0 * prod(out) * left[-2 if op.builtinOptions.adjX else -1]
    if name == "FULLY_CONNECTED":
        return 2.0 * prod(out) * right[-1]
    if name == "DEPTHWISE_CONV_2D":
        return 2.0 * prod(out) * right[1] * right[2]
    return 2.0 * prod(out) * prod(right[1:])
