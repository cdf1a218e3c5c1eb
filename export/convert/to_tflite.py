"""Keras model → ``.tflite`` bytes: batch 1, fixed shapes, builtin operations, weights inside.

```
model ──ExportArchive──▶ SavedModel ──TFLiteConverter + recipe──▶ flatbuffer ──checks──▶ bytes
          uint8 frame → float32 → model → softmax → probabilities
```
A Keras 3 model saved through a bare ``tf.Module`` loses its weights without a word (keras#20095). Here
``ExportArchive`` finds them, ``@tf.function`` methods are inlined (``inner_functions_inlined`` says why), and the
weights in the file are counted before the bytes leave this module.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from export.convert.conversion import Converter, convert_here
from export.convert.quiet import captured_stderr
from export.convert.recipes import Recipe
from export.convert.scratch import scratch_folder
from export.model.ends import answers_of, opening_of
from export.model.frames import frames_for
from export.model.serving import SIGNATURE, Serving, describe, inner_functions_inlined
from export.tflite.graph import Graph, read_graph
from fl_mobile.errors import ExportError, VerifyError

_SCALE_FIELD = 8  # vtable slot of QuantizationParameters.scale: min 4, max 6, scale 8


def to_tflite(
    model: Any,
    recipe: Recipe,
    *,
    input_dtype: str | Mapping[str, str] | None = None,
    representative: Any = None,
    convert: Converter = convert_here,
) -> bytes:
    """Returns ``model`` as a TFLite flatbuffer made by ``recipe``.

    The artifact has one signature, ``serving_default``: one frame in and ``probabilities[1, classes]`` out, or the
    inputs and outputs that ``describe(model)`` names. The same model, recipe, frames and versions give the same bytes.

    Args:
        model: A built Keras 3 model.
        recipe: A row of ``RECIPES``.
        input_dtype: See ``describe``.
        representative: Raw frames ``[n, ...]`` that calibrated recipes measure activation ranges on, of several inputs
            as ``frames_for`` takes them. Never private data unless its owner agreed: ranges are kept in the file.
        convert: Where the conversion runs; see ``export.convert.conversion``.

    Raises:
        ExportError: The model or recipe cannot become an artifact with builtin operations.
    """
    serving = describe(model, input_dtype)
    if recipe.calibrated and representative is None:
        raise ExportError(needs_frames(recipe))
    if recipe.calibrated and serving.control_flow:
        # Not left to the converter: its calibration of a WHILE kills the process (TF 2.21, keras.layers.LSTM).
        raise ExportError(
            f"recipe {recipe.name!r} cannot calibrate model {model.name!r}: it holds {', '.join(serving.control_flow)}."
            " Unroll recurrent layers (unroll=True), or take 'dynamic-int8'."
        )
    # An integer artifact must not begin with a float CAST: accelerators such as the Edge TPU stop at the first
    # operation they lack. It is traced from float32 and the converter makes the input integer.
    # Beside an input that is no frame the converter keeps float ends, and frames begin with a CAST after all.
    integer_frames = recipe.integer_frames and serving.is_image
    traced = {entry.name: "float32" if integer_frames else entry.dtype for entry in serving.inputs}
    frames = None
    if recipe.calibrated:
        given = frames_for(serving, representative, "representative frames")
        frames = {name: part.astype(traced[name]) for name, part in given.items()}
    with scratch_folder("export") as folder, captured_stderr() as chatter:
        try:
            _save(model, serving, traced, folder)
            data = convert(folder, recipe, integer_frames, frames)
        except Exception as error:  # the converter raises ValueError, RuntimeError, ConverterError and more
            raise ExportError(_explain(model, recipe, f"{error}\n{chatter()}")) from error
    if integer_frames:
        data = _read_pixels_as_they_are(data)
    _check(serving, recipe, read_graph(data))
    return data


def needs_frames(recipe: Recipe) -> str:
    """Returns the message for a calibrated recipe without frames."""
    return (
        f"recipe {recipe.name!r} measures activation ranges and needs representative frames, got none."
        " Give 100 or more typical frames, or take 'dynamic-int8', which needs none."
    )


def _save(model: Any, serving: Serving, dtypes: Mapping[str, str], folder: str) -> None:
    import keras
    import tensorflow as tf

    opening, heads = opening_of(model), {end.name: end.head for end in serving.outputs}
    specs = [tf.TensorSpec(entry.shape, dtypes[entry.name], name=entry.name) for entry in serving.inputs]

    def answer(*frame: Any) -> dict[str, Any]:
        answers = answers_of(model, opening, [tf.cast(part, tf.float32) for part in frame])
        floats = {name: tf.cast(values, tf.float32) for name, values in answers.items()}
        return {name: tf.nn.softmax(v) if heads[name] == "logits" else v for name, v in floats.items()}

    serve = tf.function(answer, input_signature=specs)
    # No archive.track(model): the archive finds the endpoint's variables by itself, and tracking would also trace and
    # store every layer on its own (a third more time for MobileNetV2).
    archive = keras.export.ExportArchive()
    with inner_functions_inlined():
        serve.get_concrete_function()  # traced here, once; the archive keeps this trace
    archive.add_endpoint(SIGNATURE, serve)
    archive.write_out(folder, verbose=False)


def _read_pixels_as_they_are(data: bytes) -> bytes:
    """Returns ``data`` with the scale of every ``uint8`` frame set to 1: a stored 200 means pixel 200.

    The converter calibrates that scale like any other. With frames no brighter than 199 it becomes 0.78, and the
    artifact would read every pixel 22 % too dark, in silence. The ``QUANTIZE`` after it maps scale 1 to the
    calibrated range exactly, so only these four bytes change.
    """
    from ai_edge_litert import schema_py_generated as schema

    patched = bytearray(data)
    for frame in schema.Model.GetRootAs(data, 0).Subgraphs(0).InputsAsNumpy():
        struct.pack_into("<f", patched, _scale_at(data, int(frame)), 1.0)
    return bytes(patched)


def _scale_at(data: bytes, frame: int) -> int:
    """Returns where the scale of input tensor ``frame`` lies in ``data``."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    users = [op for op in map(graph.Operators, range(graph.OperatorsLength())) if frame in op.InputsAsNumpy()]
    codes = [schema.Model.GetRootAs(data, 0).OperatorCodes(op.OpcodeIndex()).BuiltinCode() for op in users]
    quantization = graph.Tensors(frame).Quantization()
    if codes != [schema.BuiltinOperator.QUANTIZE] or quantization.ScaleLength() != 1 or quantization.ZeroPoint(0):
        raise ExportError(
            "the converter did not begin the integer artifact with one QUANTIZE of the frame, so its pixels cannot"
            " be pinned to 0..255. Use recipe 'dynamic-int8', and report this model."
        )
    return int(quantization._tab.Vector(quantization._tab.Offset(_SCALE_FIELD)))


def _check(serving: Serving, recipe: Recipe, graph: Graph) -> None:
    if graph.foreign_ops:
        raise ExportError(f"recipe {recipe.name!r} left operations no phone has: {', '.join(graph.foreign_ops)}")
    if graph.weights < serving.kernel_weights:
        raise ExportError(
            f"recipe {recipe.name!r}: the file holds {graph.weights} weights of the model's {serving.kernel_weights}"
            " kernel weights; some were lost on the way. Weights that inference never uses must be removed first."
        )
    try:
        signature = graph.signature(SIGNATURE)
    except VerifyError as error:
        raise ExportError(f"recipe {recipe.name!r}: {error}") from error
    found = ({(t.name, t.shape, t.dtype) for t in signature.inputs}, {(t.name, t.shape) for t in signature.outputs})
    want = (
        {(entry.name, entry.shape, entry.dtype) for entry in serving.inputs},
        {(end.name, end.shape) for end in serving.outputs},
    )
    if found != want:
        raise ExportError(f"recipe {recipe.name!r}: expected inputs and outputs {want}, got {found}")


def _explain(model: Any, recipe: Recipe, text: str) -> str:
    """Turns the converter's report, hundreds of lines of MLIR, into the operation and layer at fault."""
    start = f"model {model.name!r} cannot become a {recipe.name!r} artifact"
    ops = sorted(set(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", text)))
    if ops:
        layers = sorted({layer for op in ops for layer in _layers_of(model, op, text)})
        where = f" (layer {', '.join(map(repr, layers))})" if layers else ""
        return (
            f"{start}: operation {', '.join(ops)}{where} has no TFLite builtin. Rewrite that layer with other"
            " operations; Flex is not used, because no current phone runtime can load it."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "not supported" in line.lower()] or lines
    return f"{start}: {errors[0][:400] if errors else 'the converter gave no reason'}"


def _layers_of(model: Any, op: str, text: str) -> set[str]:
    """Reads layer names out of locations such as ``"sequential_1/my_layer_1/Svd@__inference_serve_145"``."""
    known = {layer.name for layer in getattr(model, "layers", [])}
    found = set()
    for path in re.findall(rf'"([^"@]*/{op}[^"@/]*)@', text):
        for part in path.split("/"):
            # Tracing numbers a scope it meets again: "my_layer_1" may be layer "my_layer".
            found |= {name for name in (part, re.sub(r"_\d+$", "", part)) if name in known}
    return found
