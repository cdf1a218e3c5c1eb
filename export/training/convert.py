"""Module → ``.tflite`` with every signature in one file, read back: the contract says what the file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.convert.quiet import captured_stderr
from export.convert.scratch import scratch_folder
from export.convert.traced import write_saved_model
from export.tflite.graph import read_graph
from export.training.contract import FORMAT, Signature, Weight, check_bindings, signature_in
from export.training.tidy import tidy
from fl_mobile.errors import ExportError, VerifyError
from fl_mobile.models.private_api import saved_model_to_tflite


def convert_module(module: Any, signatures: Mapping[str, Any], model_name: str) -> bytes:
    """Returns the flatbuffer of a module with these traced functions.

    Raises:
        ExportError: The converter refused, or the file holds an operation that no plain runtime has.
    """
    with scratch_folder("training") as folder, captured_stderr() as chatter:
        try:
            write_saved_model(module.variables, signatures, folder, with_values=False)
            data = tidy(saved_model_to_tflite(folder, list(signatures)))
        except Exception as error:  # the converter raises ValueError, RuntimeError, ConverterError and more
            raise ExportError(_explain(model_name, f"{error}\n{chatter()}", signatures)) from error
    foreign = read_graph(data).foreign_ops
    if foreign:
        raise ExportError(f"the training program of '{model_name}' needs operations no phone has: {', '.join(foreign)}")
    return data


def _explain(model_name: str, text: str, signatures: Mapping[str, Any]) -> str:
    """Returns the one line of the converter's pages that names the operations, and the layers they come from."""
    telling = [line.strip() for line in text.splitlines() if "TF Select ops:" in line or "Custom ops:" in line]
    short = "; ".join(dict.fromkeys(telling)) or text.strip().splitlines()[0][:300]
    kinds = {kind.strip() for line in telling for kind in line.partition(":")[2].split(",")}
    layers = dict.fromkeys(
        op.name.split("/")[-2]
        for function in signatures.values()
        for op in function.graph.get_operations()
        if op.type in kinds and "/" in op.name
    )
    where = f"layer{'s' * (len(layers) > 1)} {', '.join(map(repr, layers))}: " if layers else ""
    return f"{where}the training program of '{model_name}' does not convert to builtin operations: {short}"


def read_contract_parts(
    data: bytes, travelling: Sequence[Any]
) -> tuple[tuple[Weight, ...], tuple[Signature, ...], Mapping[str, str]]:
    """Returns weights, signatures and versions as the contract lists them, checked against the file.

    Raises:
        ExportError: The converter pruned or reshaped a tensor that the phone will bind by name.
    """
    import keras
    import tensorflow as tf

    graph = read_graph(data)
    signatures = tuple(signature_in(graph, s.key) for s in graph.signatures)
    weights = tuple(
        Weight(f"w{i:03d}", v.path, tuple(int(d) for d in v.shape), bool(v.trainable)) for i, v in enumerate(travelling)
    )
    try:
        check_bindings(weights, signatures)
    except VerifyError as error:
        raise ExportError(f"conversion broke the training program: {error}; report this model") from error
    return weights, signatures, {"tensorflow": tf.__version__, "keras": keras.__version__, "format": str(FORMAT)}
