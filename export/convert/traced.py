"""Writes traced functions over shared variables as a SavedModel.

``tf.saved_model.save`` wraps and traces every function once more, traces functions that save and restore, and writes a
checkpoint: most of the time of a small model's conversion. Here each traced function is called once in one graph, whose
initialiser fills the variables. Nothing but a converter is to read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.model.roots import part_roots


def write_saved_model(
    variables: Sequence[Any], signatures: Mapping[str, Any], folder: str, *, with_values: bool, parted: bool = False
) -> None:
    """Writes ``saved_model.pb``.

    Args:
        variables: That the functions read and assign.
        signatures: Name → concrete function of named tensors, which returns a flat dictionary of tensors.
        folder: Exists.
        with_values: Whether variables start with the values they have now, or with zeros.
        parted: Whether roots and divisions by them stay apart, see ``export.model.roots``.

    Raises:
        ValueError: A function uses a resource that is none of ``variables``.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    values = [v.numpy() if with_values else np.zeros(v.shape, v.dtype.as_numpy_dtype) for v in variables]
    with tf.Graph().as_default() as graph:
        handles, start = _filled(variables, values)
        for name, function in signatures.items():
            meta.signature_def[name].CopyFrom(_called(name, function, handles))
        meta.graph_def.CopyFrom(graph.as_graph_def())
    for function in meta.graph_def.library.function if parted else ():
        part_roots(function.node_def)
    meta.meta_info_def.tags.append(tf.saved_model.SERVING)
    meta.meta_info_def.tensorflow_version = tf.__version__
    meta.collection_def["saved_model_main_op"].node_list.value.append(start.name)
    Path(folder, "saved_model.pb").write_bytes(saved.SerializeToString(deterministic=True))


def _filled(variables: Sequence[Any], values: Sequence[Any]) -> tuple[dict[int, Any], Any]:
    """Returns the graph's handle of every variable by the id of its own, and the operation that fills them."""
    import tensorflow as tf

    handles, filled, graph = {}, [], tf.compat.v1.get_default_graph()
    for variable, value in zip(variables, values, strict=True):
        # An author's name may be any text, that of an operation may not.
        plain = re.sub(r"[^A-Za-z0-9/]", "_", variable.name.partition(":")[0]).strip("_/") or "variable"
        name = graph.unique_name(plain, mark_as_used=False)
        handle = tf.raw_ops.VarHandleOp(dtype=variable.dtype, shape=variable.shape, shared_name=name, name=name)
        handles[id(variable.handle)] = handle
        filled.append(tf.raw_ops.AssignVariableOp(resource=handle, value=value))
    with tf.control_dependencies(filled):
        return handles, tf.no_op("start")


def _called(name: str, function: Any, handles: Mapping[int, Any]) -> Any:
    """Calls a function on placeholders; returns its ``SignatureDef``."""
    import tensorflow as tf

    given = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    names = [tensor.op.get_attr("_user_specified_name").decode() for tensor in given]
    feeds = [tf.compat.v1.placeholder(t.dtype, t.shape, f"{name}_{n}") for t, n in zip(given, names, strict=True)]
    captured = [_in_graph(tensor, handles) for tensor in function.captured_inputs]
    kinds = [tensor.dtype for tensor in function.outputs]
    outputs = tf.raw_ops.StatefulPartitionedCall(args=[*feeds, *captured], Tout=kinds, f=function)
    for output, traced in zip(outputs, function.outputs, strict=True):
        output.set_shape(traced.shape)
    public = tf.compat.v1.saved_model
    return public.build_signature_def(
        {n: public.build_tensor_info(t) for n, t in zip(names, feeds, strict=True)},
        {n: public.build_tensor_info(t) for n, t in zip(sorted(function.structured_outputs), outputs, strict=True)},
        public.signature_constants.PREDICT_METHOD_NAME,
    )


def _in_graph(tensor: Any, handles: Mapping[int, Any]) -> Any:
    import tensorflow as tf

    if id(tensor) in handles:
        return handles[id(tensor)]
    if tensor.dtype == tf.resource:
        raise ValueError("a function uses a resource that is no variable of the program")
    return tf.constant(tensor.numpy())
