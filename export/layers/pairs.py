"""Which operation of a quantised artifact is which of the float32 one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.tflite.editing import NO_TENSOR, is_constant, op_name
from fl_mobile.errors import VerifyError

# Put in and taken out by quantisation; every other operation is in both files, in the same order.
_CONVERSIONS = frozenset({"CAST", "QUANTIZE", "DEQUANTIZE"})


@dataclass(frozen=True)
class OpPair:
    """One operation in both files.

    Attributes:
        op: Name in the schema, e.g. ``"CONV_2D"``.
        tensor: Name of its first result in the float32 file, which holds the Keras scopes it was traced in; of a result
            that is an output of the graph, and named as one, the name of its kernel.
        exact: ``OperatorT`` of the float32 file.
        quantized: ``OperatorT`` of the other.
    """

    op: str
    tensor: str
    exact: Any
    quantized: Any


def paired(exact: Any, quantized: Any) -> list[OpPair]:
    """Returns the operations of two ``ModelT`` made from one Keras model, side by side in execution order.

    Names of tensors are not compared: the converter numbers equal ones, and the numbers differ between recipes.

    Raises:
        VerifyError: The files do not compute the same operations.
    """
    sides = [_computing(model) for model in (exact, quantized)]
    forms = [[_form(model, op) for op in _computing(model)] for model in (exact, quantized)]
    if forms[0] != forms[1]:
        at = next((i for i, (a, b) in enumerate(zip(*forms, strict=False)) if a != b), min(map(len, forms)))
        found = [f"{form[at][0]} {list(form[at][1])}" if at < len(form) else "nothing" for form in forms]
        raise VerifyError(f"operation {at} is {found[0]} in float32 and {found[1]} in the quantised file")
    return [OpPair(op_name(exact, a), _traced_name(exact, a), a, b) for a, b in zip(*sides, strict=True)]


def _traced_name(model: Any, operator: Any) -> str:
    tensors = model.subgraphs[0].tensors
    kernel = [i for i in operator.inputs[1:2] if i != NO_TENSOR and is_constant(model, tensors[i])]
    names = [(tensors[i].name or b"").decode() for i in (operator.outputs[0], *kernel)]
    return next((name for name in names if "/" in name), names[0])


def _computing(model: Any) -> list[Any]:
    return [op for op in model.subgraphs[0].operators if op_name(model, op) not in _CONVERSIONS]


def _form(model: Any, operator: Any) -> tuple[str, tuple[int, ...]]:
    shape = model.subgraphs[0].tensors[operator.outputs[0]].shape
    return op_name(model, operator), () if shape is None else tuple(int(dim) for dim in shape)
