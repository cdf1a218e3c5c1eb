"""``ai_edge_litert.compiled_model.CompiledModel``: the API LiteRT 2.x gives to apps, on the CPU.

``CompiledModel.from_file`` kills the process on a truncated file (LiteRT#10080), so only ``from_buffer`` is used,
and only on bytes that ``read_graph`` walked to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.runtimes.runtime import Forms, Runtime, check_inputs, missing_module


@dataclass(frozen=True)
class CompiledSession:
    """A compiled model with its input and output buffers, made once."""

    model: Any
    data: bytes  # the compiled model reads weights from this memory as long as it lives
    signature: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    forms: Forms

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one frame."""
        check_inputs(inputs, {name: self.forms[name] for name in self.inputs})
        for name, value in inputs.items():
            self.inputs[name].write(value)
        self.model.run_by_name(self.signature, self.inputs, self.outputs)
        answers = {}
        for name, buffer in self.outputs.items():
            shape, dtype = self.forms[name]
            answers[name] = buffer.read(int(np.prod(shape)), dtype).reshape(shape)
        return answers


def _load(data: bytes, signature: str, threads: int) -> CompiledSession:
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, Options

    options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=threads))
    model = CompiledModel.from_buffer(data, options=options)
    sides = (model.get_input_tensor_details(signature), model.get_output_tensor_details(signature))
    return CompiledSession(
        model=model,
        data=data,
        signature=signature,
        inputs={name: model.create_input_buffer_by_name(signature, name) for name in sides[0]},
        outputs={name: model.create_output_buffer_by_name(signature, name) for name in sides[1]},
        forms={name: (tuple(d["shape"]), np.dtype(d["dtype"])) for side in sides for name, d in side.items()},
    )


LITERT_COMPILED = Runtime(
    "litert-compiled",
    lambda: missing_module("ai_edge_litert.compiled_model", "pip install 'ai-edge-litert>=2.1'"),
    _load,
    "LiteRT CompiledModel (ai-edge-litert), CPU",
    ships=True,
)
