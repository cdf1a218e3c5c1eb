"""From tensor names of a ``.tflite`` back to the Keras layers they were traced in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from export.convert.recipes import RECIPES
from export.convert.saved import SavedModels, saved_models
from export.convert.to_tflite import make_artifact
from export.layers.pairs import paired
from export.model.forms import InputForms
from export.model.serving import described
from export.tflite.editing import read_model
from export.tflite.graph import Artifact, Graph, read_graph
from fl_mobile.errors import ExportError, VerifyError, nearest

_NODE = re.compile(r"Node number (\d+) \((\w+)\)")
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True)
class FloatTwin:
    """The float32 artifact of the weights that a quantised one holds, with what Keras calls its layers.

    Attributes:
        artifact: Flatbuffer of recipe ``float32``.
        root: Name of the Keras model.
        layers: Names of all its layers, nested ones too.
        kernels: Those of ``layers`` that own a weight of rank 2 or more.
    """

    artifact: Artifact
    root: str
    layers: frozenset[str]
    kernels: frozenset[str]

    @cached_property
    def graph(self) -> Graph:
        """The flatbuffer, walked once."""
        return read_graph(self.artifact)

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self.graph.data

    @cached_property
    def model(self) -> Any:
        """The flatbuffer as a ``ModelT``, which nobody may change."""
        return read_model(self.graph)

    def paths(self, tensor: str) -> list[str]:
        """Returns the layers behind a fused operation, outer names first: ``["block/conv", "block/relu"]``.

        Keras 3 opens every scope twice and TensorFlow numbers the second, so ``conv`` is traced as ``conv_1`` and
        ``conv_1`` as ``conv_1_1``; exactly one number is taken off. Where the model's own scope carries no number,
        only a scope that is no layer's name loses its.

        >>> twin = FloatTwin(b"", "net", frozenset({"conv", "conv_1"}), frozenset({"conv"}))
        >>> twin.paths("net_1/conv_1/Relu;net_1/conv_1_2/convolution;net_1/Mul"), twin.paths("net/conv_1/Relu")
        (['conv', 'conv_1'], ['conv_1'])
        """
        found = []
        for traced in tensor.split(";"):
            scopes = traced.split("/")[:-1]
            numbered = not scopes or scopes[0] != self.root
            names = [self._layer(scope, numbered) for scope in scopes[1:]]
            found.append("/".join(name for name in names if name in self.layers))
        return list(dict.fromkeys(path for path in found if path))

    def _layer(self, scope: str, numbered: bool) -> str:
        match = _NUMBERED.fullmatch(scope)
        return match[1] if match and (numbered or scope not in self.layers) else scope

    def layer(self, tensor: str) -> str:
        """Returns the one layer that stands for an operation: the owner of its kernel, else the last applied.

        Empty when the operation belongs to no layer, such as a softmax that export added.
        """
        paths = self.paths(tensor)
        owners = [path for path in paths if path.rsplit("/", 1)[-1] in self.kernels]
        return (owners or paths or [""])[0]


def float_twin(model: Any, input_dtype: InputForms = None) -> FloatTwin:
    """Returns ``twin_of`` a model for which no SavedModel was written yet; arguments as of ``to_tflite``."""
    with saved_models(described(model, input_dtype)) as saved:
        return twin_of(saved)


def twin_of(saved: SavedModels, *, calibrated: bool = False) -> FloatTwin:
    """Returns the float32 artifact of a model with the names of its layers.

    Args:
        saved: The model.
        calibrated: Whether it has the form that calibrated recipes take, where that is another.

    Raises:
        ExportError: As ``to_tflite``.
    """
    model = saved.described.model
    layers = list(_nested(model))
    return FloatTwin(
        artifact=make_artifact(saved, RECIPES["float32"], None, calibrated=calibrated),
        root=model.name,
        layers=frozenset(layer.name for layer in layers),
        kernels=frozenset(layer.name for layer in layers if _owns_kernel(layer)),
    )


def layer_refused(twin: FloatTwin, artifact: Artifact, message: str) -> str:
    """Returns the layer of the operation that a runtime names in its refusal of ``artifact``; empty when it is none.

    An operation without a kernel for its types shows when the file is loaded or run, as ``Node number 4 (GREATER)``.
    """
    found = _NODE.search(message)
    if found is None:
        return ""
    try:
        model = read_model(artifact)
        refused = model.subgraphs[0].operators[int(found[1])]
        pair = next(pair for pair in paired(twin.model, model) if pair.quantized is refused)
    except (VerifyError, IndexError, StopIteration):
        return ""
    return twin.layer(pair.tensor) if pair.op == found[2] else ""


def check_layers(twin: FloatTwin, wanted: Sequence[str]) -> None:
    """Refuses names in ``wanted`` that no operation of the artifact belongs to.

    Raises:
        ExportError: No such layer, or one that leaves no operation behind; the message lists those that do.
    """
    present = {path for pair in paired(twin.model, twin.model) for path in twin.paths(pair.tensor)}
    for name in wanted:
        if any(belongs(path, name) for path in present):
            continue
        choices = sorted(present)
        if name in twin.layers:
            raise ExportError(
                f"layer {name!r} leaves no operation of its own in the file: it only trains, or was folded into its"
                f" neighbour. Layers that can be kept in float: {', '.join(choices)}"
            )
        raise ExportError(f"the model has no layer {name!r} to keep in float.{nearest(name, choices)}")


def belongs(path: str, name: str) -> bool:
    """Returns whether the layer at ``path`` is called ``name`` or lies inside it.

    >>> belongs("block/conv", "block"), belongs("block/conv", "block/conv"), belongs("block/conv2", "conv")
    (True, True, False)
    """
    return f"/{name}/" in f"/{path}/"


def _owns_kernel(layer: Any) -> bool:
    return not getattr(layer, "layers", ()) and any(len(weight.shape) > 1 for weight in layer.weights)


def _nested(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _nested(layer)
