"""Running a whole artifact or a slice of one on frames, with every tensor between kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.convert.quiet import captured_stderr
from export.model.frames import in_batches
from export.tflite.editing import all_activations, alone, slice_model, write_model
from export.tflite.graph import Artifact, read_graph
from export.tflite.inside import open_inside
from fl_mobile.errors import VerifyError

Values = dict[int, np.ndarray]


@dataclass(frozen=True)
class Scale:
    """How a tensor stores real numbers: ``real = factor · (stored − zero_point)``; factor 0 stores them as they are."""

    dtype: np.dtype[Any]
    factor: float
    zero_point: int

    def stored(self, real: np.ndarray) -> np.ndarray:
        """Rounds ``real`` to what the tensor can hold."""
        if not self.factor:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        rounded = np.round(real.astype(np.float64) / self.factor) + self.zero_point
        return np.clip(rounded, limits.min, limits.max).astype(self.dtype)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """Returns ``float64`` values of stored ones."""
        if not self.factor:
            return stored.astype(np.float64)
        return (stored.astype(np.float64) - self.zero_point) * self.factor


def scale_of(model: Any, index: int) -> Scale:
    """Returns how tensor ``index`` of a ``ModelT`` stores its values."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    names = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    factor = float(quantization.scale[0]) if scaled else 0.0
    return Scale(np.dtype(names[tensor.type].lower()), factor, int(quantization.zeroPoint[0]) if scaled else 0)


def every_tensor(artifact: Artifact, model: Any, frames: Mapping[str, np.ndarray]) -> Values:
    """Returns what each computed tensor of the artifact holds, as stored, ``[n, ...]``.

    Args:
        artifact: The flatbuffer.
        model: The same as ``ModelT``.
        frames: Input name → ``[n, ...]``.
    """
    graph, wanted = model.subgraphs[0], all_activations(model)
    rows: dict[int, list[np.ndarray]] = {index: [] for index in wanted}
    with captured_stderr():
        interpreter = open_inside(read_graph(artifact).data)
        interpreter.allocate_tensors()
        ends = {entry.name.decode(): int(entry.tensorIndex) for entry in model.signatureDefs[0].inputs}
        batch = int(graph.tensors[int(graph.inputs[0])].shape[0])
        for part, _ in in_batches(frames, batch):
            for name, index in ends.items():
                interpreter.set_tensor(index, part[name])
            interpreter.invoke()
            for index in wanted:
                rows[index].append(interpreter.get_tensor(index))
        del interpreter
    return {index: np.stack(values) for index, values in rows.items()}


class Slice:
    """A part of a model, loaded once and run on as many values as there are."""

    def __init__(self, model: Any, given: Sequence[int], outputs: Sequence[int], *, threads: int = 1) -> None:
        """Loads what computes tensors ``outputs`` from tensors ``given``; of those it takes the ones it needs."""
        from ai_edge_litert.interpreter import Interpreter

        part = slice_model(model, list(given), outputs)
        self.inputs = [int(index) for index in part.subgraphs[0].inputs]
        missing = [index for index in self.inputs if index not in given]
        if missing:
            raise VerifyError(f"a slice of the artifact needs tensors {missing}, which were not computed")
        with captured_stderr():
            self._interpreter = Interpreter(model_content=write_model(part), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._ends = [[detail["index"] for detail in side] for side in _details(self._interpreter)]

    def run(self, values: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs as stored, ``[n, ...]``, of ``values``: tensor → stored ``[n, ...]``."""
        rows: list[list[np.ndarray]] = [[] for _ in self._ends[1]]
        with captured_stderr():
            for number in range(len(values[self.inputs[0]])):
                for index, end in zip(self.inputs, self._ends[0], strict=True):
                    self._interpreter.set_tensor(end, values[index][number])
                self._interpreter.invoke()
                for row, end in zip(rows, self._ends[1], strict=True):
                    row.append(self._interpreter.get_tensor(end))
        return [np.stack(row) for row in rows]


def run_slice(model: Any, values: Mapping[int, np.ndarray], outputs: Sequence[int]) -> list[np.ndarray]:
    """Returns tensors ``outputs`` as stored, ``[n, ...]``, computed from ``values``: tensor → stored ``[n, ...]``.

    Raises:
        VerifyError: The slice needs a tensor that ``values`` does not hold.
    """
    return Slice(model, list(values), outputs).run(values)


def run_alone(model: Any, jobs: Sequence[tuple[Any, Mapping[int, np.ndarray]]]) -> list[np.ndarray]:
    """Returns the first output of each operation as stored, ``[n, ...]``, computed from values of its own.

    One interpreter holds them all: writing and loading a slice takes longer than most operations do.

    Args:
        model: ``ModelT``.
        jobs: Operations of the model, each with tensor → stored ``[n, ...]`` of what it reads.
    """
    part, ends = alone(model, [operator for operator, _ in jobs])
    values = {new: given[old] for stands, (_, given) in zip(ends, jobs, strict=True) for old, new in stands.items()}
    return Slice(part, list(values), [int(operator.outputs[0]) for operator, _ in jobs]).run(values)


def _details(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return interpreter.get_input_details(), interpreter.get_output_details()
