"""Running a Keras model once as a TensorFlow graph, and what is seen there that can never become an artifact."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from export.model.ends import Opening, answers_of
from fl_mobile.errors import ExportError


@contextlib.contextmanager
def inner_functions_inlined() -> Iterator[None]:
    """Traces ``@tf.function`` methods of a model as plain Python while the block runs.

    Left alone, a method that already ran eagerly keeps its own variable handles, and the TFLite converter then
    leaves those weights out without a word (found with TF 2.21: 0 of 650 weights in the file). The switch is global
    to TensorFlow, so it is put back whatever happens.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def trace(model: Any, opening: Opening) -> tuple[Any, list[str]]:
    """Returns ``model`` as a concrete function of one frame, and the names of its outputs in order."""
    import tensorflow as tf

    before = len(model.weights)
    names: list[str] = []

    def run(*frame: Any) -> list[Any]:
        answers = answers_of(model, opening, frame)
        names[:] = answers
        return list(answers.values())

    try:
        with inner_functions_inlined():
            concrete = tf.function(run).get_concrete_function(
                *(tf.TensorSpec(shape, dtype) for shape, dtype in zip(opening.shapes, opening.dtypes, strict=True))
            )
    except ExportError:
        raise
    except Exception as error:  # anything a user's layer raises while it is traced
        raise ExportError(
            f"model {model.name!r} cannot run on one frame {', '.join(map(str, opening.shapes))}: {reason_of(error)}"
        ) from error
    if len(model.weights) != before:
        raise ExportError(
            f"model {model.name!r} made {len(model.weights) - before} new weights while it was traced: its layers were"
            " not built, so their values would be random. Call the model on a frame and train or load it first."
        )
    return concrete, names


def refuse_half_precision(model: Any, concrete: Any) -> None:
    """Raises ``ExportError`` when a traced operation computes in 16-bit floats."""
    for operation in concrete.graph.get_operations():
        halves = [t.dtype.name for t in operation.outputs if t.dtype.name in ("float16", "bfloat16")]
        if halves:
            raise ExportError(
                f"model {model.name!r}: operation {operation.name!r} computes in {halves[0]}, which the"
                " converter has no kernels for. Rebuild it with the float32 policy and load the same weights;"
                " recipe 'float16' halves the file."
            )


def check_weights(model: Any) -> None:
    """Raises ``ExportError`` when a weight is not finite."""
    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ExportError(
                f"weight {weight.path!r}: {bad} of {values.size} values are not finite; training diverged."
                " Export an earlier round or train with a lower learning rate."
            )


def reason_of(error: Exception) -> str:
    r"""Returns the line that says what went wrong; under AutoGraph it follows "in user code:" and a stack of files.

    Keras opens with the layer that was called and says what happened in the line after.

    >>> reason_of(ValueError("Exception encountered when calling Dense.call().\n\nToo few axes.\n\nArguments received"))
    'ValueError: Dense.call(): Too few axes.'
    """
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [""]
    if lines[0] == "in user code:":
        named = [at for at, line in enumerate(lines) if re.match(r"\w+(Error|Exception): ", line)]
        lines = lines[named[-1] :] if named else lines
    else:
        lines[0] = f"{type(error).__name__}: {lines[0]}"
    called = lines[0].replace("Exception encountered when calling ", "").rstrip(".")
    return f"{called}: {lines[1]}" if "Exception encountered when calling" in lines[0] and len(lines) > 1 else lines[0]
