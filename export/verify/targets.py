"""Hardware and runtimes that a bundle is made for, each with what it really refuses, read from the file.

A target that is a runtime of ``RUNTIMES`` is asked: it answers the golden frames. The others are not on this host, so
their limits are looked up in the flatbuffer; ``docs/recipes.md`` has the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from export.runtimes import RUNTIMES, choose_runtimes
from export.tflite.graph import CONVERSIONS, Graph
from fl_mobile.errors import ConfigError, VerifyError, nearest

Rule = Callable[[Any], str]
"""Reads a ``ModelT`` → what the target would refuse, empty for nothing."""

_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")


@dataclass(frozen=True)
class Target:
    """One row: a name, the hardware, and its limits."""

    name: str
    what: str
    rules: tuple[Rule, ...]


def dense_layers_of_one_scale(model: Any) -> str:
    """Refuses dense kernels with one scale per output, which converters make since TF 2.16."""
    for name, operator, tensors in _operations(model):
        if name != "FULLY_CONNECTED":
            continue
        scales = getattr(tensors[operator.inputs[1]].quantization, "scale", None)
        if scales is not None and len(scales) > 1:
            return f"a dense layer has {len(scales)} scales, it takes one. Take 'int8-legacy'"
    return ""


def integers_alone(model: Any) -> str:
    """Refuses operations on floats; at the ends of the graph they may convert, which a host's CPU does."""
    ends = {int(i) for graph in model.subgraphs for i in (*graph.inputs, *graph.outputs)}
    for name, operator, tensors in _operations(model):
        if name in CONVERSIONS and ends & {int(i) for i in (*operator.inputs, *operator.outputs)}:
            ends |= {int(i) for i in operator.outputs}
            continue
        types = [_type(tensors[i]) for i in (*operator.inputs, *operator.outputs) if i >= 0]
        if found := [each for each in types if each in _FLOATS]:
            return f"{name} reads or gives {found[0]}, it computes in integers. Take 'int8' without --keep-float"
    return ""


def activations_of_8_bits(model: Any) -> str:
    """Refuses arithmetic on 16-bit activations."""
    for name, operator, tensors in _operations(model):
        if any(_type(tensors[i]) == "INT16" for i in (*operator.inputs, *operator.outputs) if i >= 0):
            return f"{name} computes on INT16, it has 8-bit kernels. Take 'int8'"
    return ""


def kernels_as_their_activations(model: Any) -> str:
    """Refuses 8-bit kernels under float activations, as ``dynamic-int8`` has them."""
    for name, operator, tensors in _operations(model):
        inputs = [_type(tensors[i]) for i in operator.inputs if i >= 0]
        if name not in CONVERSIONS and "INT8" in inputs and set(inputs) & set(_FLOATS):
            return f"{name} has an INT8 kernel under FLOAT32 activations. Take 'int8' or 'float32'"
    return ""


def no_control_flow(model: Any) -> str:
    """Refuses loops and branches."""
    names = {name for name, _, _ in _operations(model)}
    found = sorted(names & {"WHILE", "IF"})
    return f"it has no {', '.join(found)}: recurrent layers are unrolled by 'int8'" if found else ""


TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target("edge-tpu", "Coral Edge TPU", (integers_alone, activations_of_8_bits, no_control_flow)),
        Target("nnapi", "NNAPI, deprecated since Android 15", (dense_layers_of_one_scale, activations_of_8_bits)),
        # The version that the converter writes into a file says nothing of it: 1.14.0 with 32 scales and with one.
        Target("tflite-2.14", "TFLite before 2.16", (dense_layers_of_one_scale,)),
        Target("mediatek", "MediaTek NPU by LiteRT's plug-in", (dense_layers_of_one_scale,)),
        Target("ethos-u", "Arm Ethos-U by Vela", (integers_alone, no_control_flow)),
        Target("microcontroller", "LiteRT Micro, CMSIS-NN", (kernels_as_their_activations,)),
        Target(
            "microcontroller-2023",
            "the same before 2024-09",
            (kernels_as_their_activations, dense_layers_of_one_scale),
        ),
    )
}
"""Name → row; beside them stand the runtimes."""


def check_targets(names: Sequence[str]) -> None:
    """Refuses names that are no target, and runtimes that are not here.

    Raises:
        ConfigError: With the nearest name, or how to get the runtime.
    """
    for name in names:
        if name in RUNTIMES:
            choose_runtimes([name])
        elif name not in TARGETS:
            known = (*RUNTIMES, *TARGETS)
            raise ConfigError(f"target {name!r} is not known.{nearest(name, known)} Known: {', '.join(known)}")


def runtimes_among(targets: Sequence[str]) -> list[str]:
    """Returns the targets that are asked, because they are runtimes."""
    return [name for name in targets if name in RUNTIMES]


def refused_by(targets: Sequence[str], graph: Graph) -> list[str]:
    """Returns what those of ``targets`` that are not runtimes would refuse, one line each."""
    rows = [name for name in targets if name not in RUNTIMES]
    if unknown := [name for name in rows if name not in TARGETS]:
        raise VerifyError(f"target {unknown[0]!r} is not known here: the bundle is of another version of fl-mobile")
    if not rows:
        return []
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    model = read_model_from_bytearray(bytearray(graph.data))
    found = [(name, next(filter(None, (rule(model) for rule in TARGETS[name].rules)), "")) for name in rows]
    return [f"target {name}: {problem}" for name, problem in found if problem]


def _operations(model: Any) -> Iterator[tuple[str, Any, Any]]:
    from ai_edge_litert.tools.flatbuffer_utils import opcode_to_name

    for graph in model.subgraphs:
        for operator in graph.operators:
            yield str(opcode_to_name(model, operator.opcodeIndex)), operator, graph.tensors


def _type(tensor: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    return next(name for name, code in vars(schema.TensorType).items() if code == tensor.type and name[0] != "_")
