"""Which activation each output of a model comes from, found in its traced graph and checked against its answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.convert.quiet import captured_stderr
from export.model.ends import OUTPUT, Opening, answers_of
from export.model.tracing import reason_of
from fl_mobile.errors import ExportError
from fl_mobile.models.heads import last_operation

ONE_SIGMOID, ONE_LOGIT = "one-sigmoid", "one-logit"
_BY_HAND = ("RealDiv", "Reciprocal", "Minimum", "Maximum", "ClipByValue")


def heads_of(model: Any, opening: Opening, concrete: Any, *, classes: bool) -> list[str]:
    """Returns the head of every output, see ``export.model.serving.End``.

    Args:
        model: The Keras model.
        opening: Where tensors enter it.
        concrete: Its concrete function.
        classes: Whether the only output is scores of classes, ``[batch, classes]`` or one for two of them.

    Raises:
        ExportError: The only output is a softmax over one unit.
    """
    graph = concrete.graph.as_graph_def()
    last = [last_operation(graph, tensor.op.name) for tensor in concrete.outputs]
    if len(last) == 1 and classes:
        return [_only_head(model, opening, last[0], int(concrete.outputs[0].shape[1]))]
    return [name.lower() if name in ("Softmax", "Sigmoid") else "values" for name in last]


def _only_head(model: Any, opening: Opening, last: str, width: int) -> str:
    """Returns the last activation of a classifier, checked against what the model really answers."""
    if last in ("Softmax", "Sigmoid") and width > 1:
        return last.lower()
    if last == "Sigmoid":
        return ONE_SIGMOID
    if width == 1 and last == "Softmax":
        raise ExportError(f"model {model.name!r}: a softmax over one unit is 1 for every frame; use a sigmoid")
    # A softmax or sigmoid written out by hand ends in a division, and a number cut off at 0 and 1 in a comparison. A
    # second one would flatten every answer.
    answers = _answers_on_noise(model, opening)
    if width == 1:
        by_hand = last in _BY_HAND and ((answers >= 0) & (answers <= 1)).all()
        return ONE_SIGMOID if by_hand else ONE_LOGIT
    if (answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < 1e-3:
        return "softmax"
    return "logits"


def _answers_on_noise(model: Any, opening: Opening) -> np.ndarray:
    """Returns what the model answers on a few random frames: pixels, or where a vocabulary is smaller zeros and ones.

    Raises:
        ExportError: It can run on neither.
    """
    rng, reason = np.random.default_rng(0), ""
    for levels in (2,) if "int32" in opening.dtypes else (256, 2):
        probe = [
            rng.integers(0, levels, (opening.rows or 8, *shape[1:])).astype(dtype)
            for shape, dtype in zip(opening.shapes, opening.dtypes, strict=True)
        ]
        try:
            with captured_stderr():  # TensorFlow tells of a number outside a vocabulary on its own
                return np.asarray(answers_of(model, opening, probe)[OUTPUT], np.float64)
        except Exception as error:  # Keras and TensorFlow have no common root for what a layer refuses
            reason = reason_of(error)
    raise ExportError(f"model {model.name!r} cannot run on frames of zeros and ones: {reason}")
