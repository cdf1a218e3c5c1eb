"""Which activation each output of a model comes from, found in its traced graph and checked against its answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.model.ends import OUTPUT, Opening, answers_of
from fl_mobile.errors import ExportError

# Operations that only hand a tensor on, between a model's last activation and its output.
_PASS_THROUGH = frozenset({"Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "StopGradient"})


def heads_of(model: Any, opening: Opening, concrete: Any) -> list[str]:
    """Returns ``"softmax"``, ``"sigmoid"``, ``"logits"`` or, for one of several outputs, ``"values"`` per output.

    Args:
        model: The Keras model.
        opening: Where tensors enter it.
        concrete: Its concrete function of one frame.

    Raises:
        ExportError: The last activation of the only output is out of sight.
    """
    graph = concrete.graph.as_graph_def()
    last = [_last_operation(graph, tensor.op.name) for tensor in concrete.outputs]
    if len(last) == 1:
        return [_only_head(model, opening, last[0])]
    return [name.lower() if name in ("Softmax", "Sigmoid") else "values" for name in last]


def _only_head(model: Any, opening: Opening, last: str) -> str:
    """Returns the last activation of a classifier, checked against what the model really answers."""
    if last in ("Softmax", "Sigmoid"):
        return last.lower()
    if last.endswith("PartitionedCall"):
        raise ExportError(
            f"model {model.name!r}: its last activation is hidden inside a function call. Add"
            " Activation('softmax') as last layer, so that export knows what the outputs are."
        )
    # A softmax written out by hand ends in a division. Adding a second one would flatten every answer.
    rng = np.random.default_rng(0)
    probe = [rng.integers(0, 256, (8, *shape[1:])).astype(np.float32) for shape in opening.shapes]
    answers = np.asarray(answers_of(model, opening, probe)[OUTPUT], np.float64)
    if (answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < 1e-3:
        return "softmax"
    return "logits"


def _last_operation(graph: Any, name: str) -> str:
    """Returns the type of the operation that computes ``name``, seen through casts and the like."""
    nodes = {node.name: node for node in graph.node}
    while name in nodes and nodes[name].op in _PASS_THROUGH:
        name = nodes[name].input[0].split(":")[0]
    return str(nodes[name].op) if name in nodes else "Placeholder"
