"""Ranges of activations: the least and greatest value of every tensor over representative frames.

TensorFlow's own calibrator (2.21) looks at what an operation has read once more when it is done, and by then the kernel
may have written its result over it: the sigmoids of an LSTM reach down to −.8, and memory that nobody has written to
gets into files. It also looks through each tensor three times, value by value (EfficientNetB0: .36 s a frame, of which
.03 s are the model's; this takes .08).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from export.tflite.editing import all_activations, op_name, read_model, write_model
from export.tflite.graph import read_graph
from export.tflite.inside import open_inside
from fl_mobile.errors import VerifyError

_STATEFUL = {"LSTM", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
"""Operations that are quantised by values from their inside."""

_SPLITS = {"SPLIT", "SPLIT_V"}


def with_ranges(data: bytes, samples: Callable[[], Iterable[Any]]) -> bytes | None:
    """Returns a float32 flatbuffer whose tensors tell their ranges, as TensorFlow's quantisers read them.

    None where only TensorFlow's calibrator will do, or knows what to say: NaN, loops and branches, operations with an
    inside, samples that do not fit.

    Args:
        data: The flatbuffer.
        samples: Yields ``{input name: [batch, ...]}``.
    """
    try:
        model = read_model(data)
        if any(op_name(model, operator) in _STATEFUL for operator in model.subgraphs[0].operators):
            return None
        tensors, least, greatest = _measured(data, model, samples())
    except (VerifyError, ValueError, RuntimeError, TypeError, KeyError):
        return None
    if not len(tensors) or np.isnan(least).any():
        return None
    return _told(model, tensors, least, greatest)


def splits_integers(data: bytes) -> bool:
    """Returns whether every operation that splits a tensor of an 8-bit file does so in integers.

    TensorFlow's quantiser (2.21) leaves one now and then in float32 between a DEQUANTIZE and several QUANTIZE: a third
    of all conversions of a GRU from the same ranges.
    """
    return _SPLITS.isdisjoint(read_graph(data).float_ops)


def _measured(data: bytes, model: Any, samples: Iterable[Any]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Returns the numbers of all float32 tensors that are fed or computed, and their least and greatest values."""
    from ai_edge_litert.schema_py_generated import TensorType

    tensors = [i for i in all_activations(model) if model.subgraphs[0].tensors[i].type == TensorType.FLOAT32]
    ends = {entry.name.decode(): int(entry.tensorIndex) for entry in model.signatureDefs[0].inputs}
    interpreter = open_inside(data)
    least, greatest = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    for number, sample in enumerate(samples):
        if number == 0:
            for name, index in ends.items():
                interpreter.resize_tensor_input(index, np.shape(sample[name]))
            interpreter.allocate_tensors()
        for name, index in ends.items():
            interpreter.set_tensor(index, sample[name])
        interpreter.invoke()
        for k, index in enumerate(tensors):
            values = interpreter.tensor(index)()  # a view: the interpreter does not go on while one is held
            least[k] = np.minimum(least[k], values.min(initial=np.inf))
            greatest[k] = np.maximum(greatest[k], values.max(initial=-np.inf))
            del values
    seen = np.flatnonzero(~(least > greatest))
    return [tensors[k] for k in seen], least[seen], greatest[seen]


def _told(model: Any, tensors: list[int], least: np.ndarray, greatest: np.ndarray) -> bytes:
    """Returns the flatbuffer of ``model`` with ranges written to its tensors."""
    from ai_edge_litert.schema_py_generated import QuantizationParametersT

    for index, low, high in zip(tensors, least.tolist(), greatest.tolist(), strict=True):
        told = QuantizationParametersT()
        told.min, told.max = [low], [high]
        model.subgraphs[0].tensors[index].quantization = told
    return write_model(model)
