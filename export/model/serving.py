"""What the phone will call: one frame in, one row of class probabilities out; or several of either, by name.

Everything about the Keras model that export must know before it converts is found here, once, and everything
that would export wrongly is refused here: models without weights, open shapes, NaN weights.

The only output of a classifier answers one probability per class: one that ends in logits gets a softmax in the graph,
one unit for two classes becomes the two of them. Whether the only output is classes, whoever has the labels says. Of
several outputs, and where there are no classes, each leaves as the model computes it: a row of numbers may be logits, a
box or an angle, and only its author knows.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from export.model.ends import Opening, answers_of, opening_of
from export.model.forms import Entry, InputForms, entries_of
from export.model.heads import ONE_LOGIT, ONE_SIGMOID, heads_of
from export.model.recurrent import loops_unrolled, recurrent_layers, steps_of
from export.model.roots import has_roots
from export.model.tracing import check_weights, inner_functions_inlined, refuse_half_precision, trace
from fl_mobile.errors import ExportError
from fl_mobile.tensors import weights_hash

SIGNATURE = "serving_default"
Frames = dict[str, np.ndarray]
"""Input name → ``uint8``, ``int32`` or ``float32[n, ...]``; every input has the same n."""

_BATCH = 32
# Of each step an unrolled LSTM holds some 20 operations; the file and the time to convert it grow with them.
MAX_UNROLLED_STEPS = 256
_CONTROL_FLOW = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})


@dataclass(frozen=True)
class End:
    """One output of the artifact.

    Attributes:
        name: See ``export.model.ends``.
        shape: With the batch, e.g. ``(1, 10)``.
        head: The activation it comes from: ``"softmax"`` and ``"sigmoid"`` are left alone, ``"logits"`` (of the only
            output) get a softmax in the graph, ``"one-sigmoid"`` and ``"one-logit"`` (the only output, one unit for two
            classes) become the probabilities of both, ``"values"`` are left alone.
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
        control_flow: Loops and branches that stay where recurrent layers are unrolled; calibration cannot look inside.
        open_batch: Whether a runtime may give it any number of rows by resizing its inputs; it is stored with one.
        unrolled: Whether calibrated recipes hold recurrent layers step by step; the others hold their loops.
        parameters: Weights of the Keras model.
        kernel_weights: Those of rank 2 or more. An artifact holds about as many; fewer where equal kernels are
            stored once or inference needs only a product of several (LoRA).
        weights_sha256: Identity of the model's weights: order, shapes and values. Not paths: Keras numbers those anew
            when a model is loaded.
    """

    inputs: tuple[Entry, ...]
    outputs: tuple[End, ...]
    control_flow: tuple[str, ...]
    parameters: int
    kernel_weights: int
    weights_sha256: str
    unrolled: bool = False
    open_batch: bool = False

    @property
    def batch(self) -> int:
        """Rows that an artifact answers at once."""
        return self.inputs[0].shape[0]

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


@dataclass(frozen=True, eq=False)
class Described:
    """A Keras model and what export found out about it; hand this on, because finding out means tracing the model.

    Attributes:
        model: The Keras model.
        opening: Where tensors enter it.
        serving: The contract of its artifacts.
        operations: Types of TensorFlow operation in its traced graph.
        roots: Whether it divides by square roots that may be 0, see ``export.model.roots``.
    """

    model: Any
    opening: Opening
    serving: Serving
    operations: frozenset[str]
    roots: bool

    @property
    def two_forms(self) -> bool:
        """Whether calibrated recipes take another graph: loops unrolled, what divides by a square root in one piece.

        Of root and division apart 8 bits would make a division by 0, which LiteRT refuses; their ``RSQRT`` of 0 is a
        number.
        """
        return self.serving.unrolled or self.roots


def describe(model: Any, input_dtype: InputForms = None, *, classes: bool = True, batch: int = 1) -> Serving:
    """Returns how ``model`` will be served; arguments and errors as of ``described``."""
    return described(model, input_dtype, classes=classes, batch=batch).serving


def described(model: Any, input_dtype: InputForms = None, *, classes: bool = True, batch: int = 1) -> Described:
    """Returns ``model`` with how it will be served, found by tracing it once.

    Args:
        model: A built Keras 3 model.
        input_dtype: ``"uint8"``, ``"int32"`` or ``"float32"`` for all inputs, or by input name; ``"float32:0..1"``
            declares a range. By default rank-4 float inputs are ``uint8`` camera frames and all others what Keras
            declares.
        classes: Whether the only output is class scores; nothing is added to one that is not.
        batch: Rows that an artifact answers at once; 0 leaves the number open.

    Raises:
        ExportError: The model cannot be served from a phone as it is; the message says what to change.
    """
    if batch < 0:
        raise ExportError(f"batch: expected 1 or more rows, or 0 for any number, got {batch}")
    opening = opening_of(model, batch or 1)
    inputs = entries_of(opening, input_dtype)
    concrete, names = trace(model, opening)
    check_weights(model)
    refuse_half_precision(model, concrete)
    outputs = _ends(model, opening, concrete, names, classes=classes)
    weights = [w for w in model.weights if "float" in str(w.dtype)]
    operations = _operations(concrete)
    loops, unrolled = _without_recurrence(model, opening, operations & _CONTROL_FLOW)
    serving = Serving(
        inputs=inputs,
        outputs=outputs,
        control_flow=tuple(sorted(loops)),
        parameters=sum(int(np.prod(w.shape)) for w in weights),
        kernel_weights=sum(int(np.prod(w.shape)) for w in weights if len(w.shape) > 1),
        weights_sha256=weights_hash({str(i): np.asarray(weight) for i, weight in enumerate(model.weights)}),
        unrolled=unrolled,
        open_batch=not batch,
    )
    return Described(model, opening, serving, operations, has_roots(concrete.graph.as_graph_def()))


def _operations(concrete: Any) -> frozenset[str]:
    return frozenset(operation.type for operation in concrete.graph.get_operations())


def _without_recurrence(model: Any, opening: Opening, loops: frozenset[str]) -> tuple[frozenset[str], bool]:
    """Returns the control flow that stays when recurrent layers are unrolled, and whether they are to be."""
    layers = recurrent_layers(model) if loops else []
    if not layers or any(steps_of(layer) > MAX_UNROLLED_STEPS for layer in layers):
        return loops, False
    try:
        with loops_unrolled(model):
            left = _operations(trace(model, opening)[0]) & _CONTROL_FLOW
    except ExportError:  # a cell of the user's own that only runs in a loop
        return loops, False
    return (loops, False) if left else (left, True)


def predict(model: Any, serving: Serving, frames: Frames) -> dict[str, np.ndarray]:
    """Returns Keras' own answers by output name, ``float32[n, ...]``, the oracle every artifact is held against.

    The softmax is NumPy's in float64, so it shares no code with the exported graph. A branch may look at all rows of a
    batch, so a model with one is asked row by row, as a phone does it; its ``@tf.function`` methods then run as plain
    Python, because the graph of one that built its layers holds their first values (Keras 3.15).
    """
    opening, batches = opening_of(model, None), []
    count = len(next(iter(frames.values())))
    size = opening.rows or (1 if serving.control_flow else _BATCH)
    with inner_functions_inlined() if serving.control_flow else contextlib.nullcontext():
        for start in range(0, count, size):
            rows = np.arange(start, start + size if opening.rows else min(start + size, count))
            batch = [
                np.asarray(frames[entry.name][np.minimum(rows, count - 1)], dtype)  # the last is repeated to fill up
                for entry, dtype in zip(serving.inputs, opening.dtypes, strict=True)
            ]
            batches.append(answers_of(model, opening, batch))
    answers = {}
    for end in serving.outputs:
        rows = np.concatenate([np.asarray(batch[end.name], np.float64) for batch in batches])[:count]
        answers[end.name] = _finished(rows, end.head).astype(np.float32)
    return answers


def _only(ends: tuple[_Tensor, ...], what: str) -> _Tensor:
    if len(ends) != 1:
        raise ExportError(f"expected a model with one {what}, this one has {list_ends(ends)}")
    return ends[0]


def list_ends(ends: tuple[Entry, ...] | tuple[End, ...]) -> str:
    """Returns their number, names and shapes, for messages."""
    return f"{len(ends)} ({', '.join(f'{end.name} {list(end.shape)}' for end in ends)})"


def _finished(rows: np.ndarray, head: str) -> np.ndarray:
    """Returns what the artifact is to answer for the model's own ``rows``."""
    if head == "logits":
        return _softmax(rows)
    if head not in (ONE_LOGIT, ONE_SIGMOID):
        return rows
    second = rows if head == ONE_SIGMOID else np.exp(-np.logaddexp(0.0, -rows))
    return np.concatenate([1.0 - second, second], axis=1)


def _softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _ends(model: Any, opening: Opening, concrete: Any, names: list[str], *, classes: bool) -> tuple[End, ...]:
    shapes = [tuple(tensor.shape) if tensor.shape.rank is not None else (None,) for tensor in concrete.outputs]
    ends = tuple(End(name, shape, "values") for name, shape in zip(names, shapes, strict=True))
    if any(None in end.shape for end in ends):
        raise ExportError(f"model {model.name!r}: the size of an output is open: {list_ends(ends)}")
    if len(ends) == 1 and classes and len(ends[0].shape) != 2:
        raise ExportError(
            f"model {model.name!r}: expected an output [batch, classes], got {list_ends(ends)}. An output that is"
            " no row of classes is exported without class labels."
        )
    heads = heads_of(model, opening, concrete, classes=classes)
    pairs = (ONE_LOGIT, ONE_SIGMOID)
    return tuple(
        replace(end, head=head, shape=(end.shape[0], 2) if head in pairs else end.shape)
        for end, head in zip(ends, heads, strict=True)
    )
