"""What the phone will call: one frame in, one row of class probabilities out; or several of either, by name.

Everything about the Keras model that export must know before it converts is found here, once, and everything
that would export wrongly is refused here: models without weights, open shapes, NaN weights.

A model with one output is a classifier, and one that ends in logits gets a softmax in the graph. Of several outputs
each leaves as the model computes it: a row of numbers may be logits, a box or an angle, and only its author knows.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from export.model.ends import Opening, answers_of, opening_of
from export.model.heads import heads_of
from fl_mobile.errors import ExportError, nearest
from fl_mobile.tensors import weights_hash

SIGNATURE = "serving_default"
Frames = dict[str, np.ndarray]
"""Input name → ``uint8`` or ``float32[n, ...]``; every input has the same n."""

_BATCH = 256
_CONTROL_FLOW = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})


@dataclass(frozen=True)
class Entry:
    """One input of the artifact.

    Attributes:
        name: See ``export.model.ends``.
        shape: With the batch of 1, e.g. ``(1, 28, 28, 1)``.
        dtype: ``"uint8"`` raw pixels 0..255, or ``"float32"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether it takes raw camera frames."""
        return self.dtype == "uint8"


@dataclass(frozen=True)
class End:
    """One output of the artifact.

    Attributes:
        name: See ``export.model.ends``.
        shape: With the batch of 1, e.g. ``(1, 10)``.
        head: The activation it comes from: ``"softmax"`` and ``"sigmoid"`` are left alone, ``"logits"`` (of the only
            output) get a softmax in the graph, ``"values"`` (one output of several) are left alone.
    """

    name: str
    shape: tuple[int, ...]
    head: str

    @property
    def num_classes(self) -> int:
        """Length of a row of class scores; 0 when the output is no row of two or more."""
        return self.shape[1] if len(self.shape) == 2 and self.shape[1] > 1 else 0


_Tensor = TypeVar("_Tensor", Entry, End)


@dataclass(frozen=True)
class Serving:
    """The contract between the artifact and the app.

    Attributes:
        inputs: In the model's order.
        outputs: In the model's order.
        control_flow: Loops and branches that depend on data; calibration cannot look inside them.
        parameters: Weights of the Keras model.
        kernel_weights: Those of rank 2 or more. They must all be found in the artifact; vectors may not be,
            because batch-norm statistics are folded into the kernel before them.
        weights_sha256: Identity of the model's weights: order, shapes and values. Not paths: Keras numbers those anew
            when a model is loaded.
    """

    inputs: tuple[Entry, ...]
    outputs: tuple[End, ...]
    control_flow: tuple[str, ...]
    parameters: int
    kernel_weights: int
    weights_sha256: str

    @property
    def is_image(self) -> bool:
        """Whether the artifact takes raw camera frames and nothing else."""
        return all(entry.is_image for entry in self.inputs)

    @property
    def entry(self) -> Entry:
        """The only input.

        Raises:
            ExportError: There are several.
        """
        return _only(self.inputs, "input")

    @property
    def end(self) -> End:
        """The only output.

        Raises:
            ExportError: There are several.
        """
        return _only(self.outputs, "output")

    @property
    def input_dtypes(self) -> dict[str, str]:
        """Input name → dtype, as ``describe`` takes it."""
        return {entry.name: entry.dtype for entry in self.inputs}


def describe(model: Any, input_dtype: str | Mapping[str, str] | None = None) -> Serving:
    """Returns how ``model`` will be served.

    Args:
        model: A built Keras 3 model.
        input_dtype: ``"uint8"`` or ``"float32"`` for all inputs, or by input name; by default rank-4 inputs are
            ``uint8`` camera frames and all others ``float32``.

    Raises:
        ExportError: The model cannot be served from a phone as it is; the message says what to change.
    """
    opening = opening_of(model)
    inputs = _entries(opening, input_dtype)
    concrete, names = _trace(model, opening)
    _check_weights(model)
    _refuse_half_precision(model, concrete)
    outputs = _ends(model, opening, concrete, names)
    weights = [w for w in model.weights if "float" in str(w.dtype)]
    return Serving(
        inputs=inputs,
        outputs=outputs,
        control_flow=tuple(sorted({op.type for op in concrete.graph.get_operations()} & _CONTROL_FLOW)),
        parameters=sum(int(np.prod(w.shape)) for w in weights),
        kernel_weights=sum(int(np.prod(w.shape)) for w in weights if len(w.shape) > 1),
        weights_sha256=weights_hash({str(i): np.asarray(weight) for i, weight in enumerate(model.weights)}),
    )


def predict(model: Any, serving: Serving, frames: Frames) -> dict[str, np.ndarray]:
    """Returns Keras' own answers by output name, ``float32[n, ...]``, the oracle every artifact is held against.

    The softmax is NumPy's in float64, so it shares no code with the exported graph.
    """
    opening, batches = opening_of(model), []
    for start in range(0, len(next(iter(frames.values()))), _BATCH):
        batch = [np.asarray(frames[entry.name][start : start + _BATCH], np.float32) for entry in serving.inputs]
        batches.append(answers_of(model, opening, batch))
    answers = {}
    for end in serving.outputs:
        rows = np.concatenate([np.asarray(batch[end.name], np.float64) for batch in batches])
        answers[end.name] = (_softmax(rows) if end.head == "logits" else rows).astype(np.float32)
    return answers


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


def _only(ends: tuple[_Tensor, ...], what: str) -> _Tensor:
    if len(ends) != 1:
        raise ExportError(f"expected a model with one {what}, this one has {list_ends(ends)}")
    return ends[0]


def list_ends(ends: tuple[Entry, ...] | tuple[End, ...]) -> str:
    """Returns their number, names and shapes, for messages."""
    return f"{len(ends)} ({', '.join(f'{end.name} {list(end.shape)}' for end in ends)})"


def _softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _entries(opening: Opening, input_dtype: str | Mapping[str, str] | None) -> tuple[Entry, ...]:
    if isinstance(input_dtype, Mapping):
        odd = [name for name in input_dtype if name not in opening.names]
        if odd:
            raise ExportError(f"input_dtype: the model has no input {odd[0]!r}.{nearest(odd[0], opening.names)}")
        wanted = dict(input_dtype)
    else:
        wanted = dict.fromkeys(opening.names, input_dtype) if input_dtype is not None else {}
    entries = []
    for name, shape in zip(opening.names, opening.shapes, strict=True):
        dtype = wanted.get(name, "uint8" if len(shape) == 4 else "float32")
        if dtype not in ("uint8", "float32"):
            raise ExportError(f"input_dtype must be 'uint8' (raw pixels) or 'float32', got {dtype!r}")
        entries.append(Entry(name, shape, dtype))
    return tuple(entries)


def _trace(model: Any, opening: Opening) -> tuple[Any, list[str]]:
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
                *(tf.TensorSpec(shape, tf.float32) for shape in opening.shapes)
            )
    except ExportError:
        raise
    except Exception as error:  # anything a user's layer raises while it is traced
        raise ExportError(
            f"model {model.name!r} cannot run on one frame {', '.join(map(str, opening.shapes))}: {_reason(error)}"
        ) from error
    if len(model.weights) != before:
        raise ExportError(
            f"model {model.name!r} made {len(model.weights) - before} new weights while it was traced: its layers were"
            " not built, so their values would be random. Call the model on a frame and train or load it first."
        )
    return concrete, names


def _reason(error: Exception) -> str:
    """Returns the line that says what went wrong; under AutoGraph it follows "in user code:" and a stack of files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    named = [line for line in lines if re.match(r"\w+(Error|Exception): ", line)]
    return named[-1] if lines[0] == "in user code:" and named else f"{type(error).__name__}: {lines[0]}"


def _ends(model: Any, opening: Opening, concrete: Any, names: list[str]) -> tuple[End, ...]:
    shapes = [tuple(tensor.shape) if tensor.shape.rank is not None else (None,) for tensor in concrete.outputs]
    ends = tuple(End(name, shape, "values") for name, shape in zip(names, shapes, strict=True))
    if any(None in end.shape for end in ends):
        raise ExportError(f"model {model.name!r}: the size of an output is open: {list_ends(ends)}")
    if not any(end.num_classes for end in ends):
        raise ExportError(
            f"model {model.name!r}: expected an output [batch, classes] with 2 or more classes, got"
            f" {list_ends(ends)}. Export the classifier; a single sigmoid unit becomes Dense(2, activation='softmax')."
        )
    heads = heads_of(model, opening, concrete)
    return tuple(replace(end, head=head) for end, head in zip(ends, heads, strict=True))


def _refuse_half_precision(model: Any, concrete: Any) -> None:
    for operation in concrete.graph.get_operations():
        halves = [t.dtype.name for t in operation.outputs if t.dtype.name in ("float16", "bfloat16")]
        if halves:
            raise ExportError(
                f"model {model.name!r}: operation {operation.name!r} computes in {halves[0]}, which the"
                " converter has no kernels for. Rebuild it with the float32 policy and load the same weights;"
                " recipe 'float16' halves the file."
            )


def _check_weights(model: Any) -> None:
    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ExportError(
                f"weight {weight.path!r}: {bad} of {values.size} values are not finite; training diverged."
                " Export an earlier round or train with a lower learning rate."
            )
