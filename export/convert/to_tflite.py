"""Keras model → ``.tflite`` bytes: batch 1, fixed shapes, builtin operations, weights inside.

```
described model ──saved_models──▶ SavedModel ──TFLiteConverter + recipe──▶ flatbuffer ──checks──▶ Graph
```
That the weights in the file are the model's is for parity to say (``export.verify``): how many constants a file holds
says little, because equal ones are stored once and those that inference does not need are folded away.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.convert.conversion import Apart, Converter, convert_here
from export.convert.quiet import captured_stderr
from export.convert.recipes import Recipe, compute_int16
from export.convert.saved import SavedModels, saved_models
from export.convert.scratch import check_room
from export.model.forms import InputForms
from export.model.frames import frames_for, in_batches
from export.model.serving import MAX_UNROLLED_STEPS, SIGNATURE, Frames, Serving, described
from export.tflite.graph import Graph, read_graph
from fl_mobile.errors import ExportError, VerifyError

_SCALE_FIELD = 8  # vtable slot of QuantizationParameters.scale: min 4, max 6, scale 8


def to_tflite(
    model: Any,
    recipe: Recipe,
    *,
    input_dtype: InputForms = None,
    representative: Any = None,
    convert: Converter = convert_here,
) -> bytes:
    """Returns ``model`` as a TFLite flatbuffer made by ``recipe``.

    The artifact has one signature, ``serving_default``: one frame in and ``probabilities[1, classes]`` out, or the
    inputs and outputs that ``describe(model)`` names. The same model, recipe, frames and versions give the same bytes.
    For several recipes of one model, describe it once and call ``make_artifact``.

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
    found = described(model, input_dtype)
    frames = None
    if recipe.calibrated and representative is not None and not unsuited(found.serving, recipe):
        frames = frames_for(found.serving, representative, "representative frames")
    with saved_models(found, convert) as saved:
        return make_artifact(saved, recipe, frames).data


def make_artifact(
    saved: SavedModels, recipe: Recipe, representative: Frames | None, *, calibrated: bool | None = None
) -> Graph:
    """Returns the artifact of ``recipe``.

    Args:
        saved: The model.
        recipe: A row of ``RECIPES`` or ``TUNED_RECIPES``.
        representative: What calibrated recipes measure activation ranges on; others ignore it.
        calibrated: Whether it has the form of calibrated recipes (`Described.two_forms`); by default of those alone.

    Raises:
        ExportError: As ``to_tflite``.
    """
    serving = saved.described.serving
    if why := unsuited(serving, recipe):
        raise ExportError(f"recipe {recipe.name!r} cannot calibrate model {saved.described.model.name!r}: {why}")
    if recipe.calibrated and representative is None:
        raise ExportError(needs_frames(recipe))
    with captured_stderr() as chatter:
        try:
            data = saved.convert(*_job(saved, recipe, representative, calibrated))
        except Exception as error:  # the converter raises ValueError, RuntimeError, ConverterError and more
            check_room(error)
            raise ExportError(_explain(saved.described.model, f"{error}\n{chatter()}")) from error
    graph = read_graph(_read_pixels_as_they_are(data) if _integer_frames(serving, recipe) else data)
    _check(serving, recipe, graph)
    return graph


def _job(
    saved: SavedModels, recipe: Recipe, representative: Frames | None, calibrated: bool | None
) -> tuple[str, Recipe, bool, Frames | None]:
    """Returns what a converter is given."""
    serving = saved.described.serving
    integer_frames = _integer_frames(serving, recipe)
    traced = {entry.name: "float32" if integer_frames else entry.dtype for entry in serving.inputs}
    frames = None
    if recipe.calibrated and representative is not None:
        groups = [part for part, _ in in_batches(representative, serving.batch)]
        frames = {name: np.stack([part[name] for part in groups]).astype(dtype) for name, dtype in traced.items()}
    folder = saved.folder(traced, calibrated=recipe.calibrated if calibrated is None else calibrated)
    return folder, recipe, integer_frames, frames


def _integer_frames(serving: Serving, recipe: Recipe) -> bool:
    # An integer artifact must not begin with a float CAST: accelerators such as the Edge TPU stop at the first
    # operation they lack. It is traced from float32 and the converter makes the input integer.
    # Beside an input that is no frame the converter keeps float ends, and frames begin with a CAST after all.
    return recipe.integer_frames and serving.is_image


def convert_ahead(saved: SavedModels, recipes: Sequence[Recipe], representative: Frames | None) -> None:
    """Lets a converter of its own process begin with artifacts that will be asked for; elsewhere nothing happens.

    What cannot be converted is told when `make_artifact` asks for it.
    """
    if not isinstance(saved.convert, Apart):
        return
    suited = [recipe for recipe in recipes if not unsuited(saved.described.serving, recipe)]
    suited = [recipe for recipe in suited if representative is not None or not recipe.calibrated]
    if len({recipe.calibrated for recipe in suited}) == 2:
        saved.convert.calibrate_apart()
    for recipe in sorted(suited, key=lambda recipe: not recipe.calibrated):  # what takes longest begins first
        with captured_stderr(), contextlib.suppress(Exception):  # somebody's own code among it
            saved.convert.ahead(*_job(saved, recipe, representative, None))


def unsuited(serving: Serving, recipe: Recipe) -> str:
    """Returns why no artifact of ``recipe`` is made of such a model and what to do instead; empty when one can be."""
    if recipe.calibrated and serving.control_flow:
        # Not left to the converter: its calibration of a WHILE kills the process (TF 2.21, keras.layers.LSTM).
        return (
            f"it holds {', '.join(serving.control_flow)}, whose inside cannot be calibrated; recurrent layers of Keras"
            f" are unrolled, up to {MAX_UNROLLED_STEPS} steps. Take 'dynamic-int8'."
        )
    if recipe.configure is compute_int16 and any(entry.dtype == "int32" for entry in serving.inputs):
        return "int16 activations cannot be calibrated beside int32 inputs such as tokens (TF 2.21). Take 'int8'."
    return ""


def needs_frames(recipe: Recipe) -> str:
    """Returns the message for a calibrated recipe without frames."""
    return (
        f"recipe {recipe.name!r} measures activation ranges and needs representative frames, got none."
        " Give 100 or more typical frames, or take 'dynamic-int8', which needs none."
    )


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


def _explain(model: Any, text: str) -> str:
    """Turns the converter's report, hundreds of lines of MLIR, into the operation and layer at fault."""
    start = f"model {model.name!r} cannot become an artifact"
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
