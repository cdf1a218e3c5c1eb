"""Where the bytes of an artifact are: kernels, which must follow from the model, and the graph around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.convert.recipes import Recipe
from export.tflite.graph import Artifact, read_graph


@dataclass(frozen=True)
class SizeAccount:
    """One artifact's bytes.

    Attributes:
        file_bytes: Length of the file.
        kernel_bytes: Stored data of constants of rank 2 or more that hold more values than a row of them.
        expected_bytes: Kernel weights of the model × bits of the recipe, plus everything that is not a kernel.
    """

    file_bytes: int
    kernel_bytes: int
    expected_bytes: float

    @property
    def error(self) -> float:
        """Relative distance of the file from what was expected; 0.01 is 1 %."""
        return abs(self.file_bytes - self.expected_bytes) / self.expected_bytes


def account_for(artifact: Artifact, kernel_weights: int, recipe: Recipe) -> SizeAccount:
    """Returns where the bytes of ``artifact`` are.

    Args:
        kernel_weights: Of the Keras model (``Serving.kernel_weights``).
        recipe: Its recipe. Kernels stored as gaps and values are smaller than ``expected_bytes``.

    Raises:
        VerifyError: It is not a TFLite flatbuffer.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = read_graph(artifact).data  # checks every length before the accessors below trust them
    model = schema.Model.GetRootAs(data, 0)
    kernels: dict[int, int] = {}
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            stored = model.Buffers(tensor.Buffer()).DataLength()
            if stored and tensor.ShapeLength() >= 2 and int(np.prod(tensor.ShapeAsNumpy())) > 1:
                kernels[tensor.Buffer()] = stored  # a buffer that tensors share is stored once
    kernel_bytes = sum(kernels.values())
    return SizeAccount(len(data), kernel_bytes, len(data) - kernel_bytes + kernel_weights * recipe.weight_bits / 8)
