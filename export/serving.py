"""What the phone will call: one frame in, one row of class probabilities out.

Everything about the Keras model that export must know before it converts is found here, once, and everything
that would export wrongly is refused here: models without weights, several inputs, open shapes, NaN weights.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ExportError
from fl_mobile.tensors import weights_hash

SIGNATURE = "serving_default"
OUTPUT = "probabilities"
IMAGE_INPUT = "image"
_BATCH = 256
_AUTOMATIC_NAME = re.compile(r"(input_layer|keras_tensor|input)(_\d+)?$")
# Operations that only hand a tensor on, between a model's last activation and its output.
_PASS_THROUGH = frozenset({"Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "StopGradient"})
_CONTROL_FLOW = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})


@dataclass(frozen=True)
class Serving:
    """The contract between the artifact and the app.

    Attributes:
        input_name: ``"image"`` for camera frames, else the name the model's author gave its input.
        input_shape: With the batch of 1, e.g. ``(1, 28, 28, 1)``.
        input_dtype: ``"uint8"`` raw pixels 0..255, or ``"float32"``.
        head: The model's last activation: ``"softmax"`` and ``"sigmoid"`` are left alone, ``"logits"`` gets a
            softmax added in the graph.
        num_classes: Length of the output row.
        control_flow: Loops and branches that depend on data; calibration cannot look inside them.
        parameters: Weights of the Keras model.
        kernel_weights: Those of rank 2 or more. They must all be found in the artifact; vectors may not be,
            because batch-norm statistics are folded into the kernel before them.
        weights_sha256: Identity of the model's weights.
    """

    input_name: str
    input_shape: tuple[int, ...]
    input_dtype: str
    head: str
    num_classes: int
    control_flow: tuple[str, ...]
    parameters: int
    kernel_weights: int
    weights_sha256: str

    @property
    def is_image(self) -> bool:
        """Whether the artifact takes raw camera frames."""
        return self.input_dtype == "uint8"


def describe(model: Any, input_dtype: str | None = None) -> Serving:
    """Returns how ``model`` will be served.

    Args:
        model: A built Keras 3 model with one input and one output ``[batch, classes]``.
        input_dtype: ``"uint8"`` or ``"float32"``; by default rank-4 inputs are ``uint8`` camera frames.

    Raises:
        ExportError: The model cannot be served from a phone as it is; the message says what to change.
    """
    name, shape = _input_of(model)
    if input_dtype is None:
        input_dtype = "uint8" if len(shape) == 4 else "float32"
    if input_dtype not in ("uint8", "float32"):
        raise ExportError(f"input_dtype must be 'uint8' (raw pixels) or 'float32', got {input_dtype!r}")
    concrete = _trace(model, shape)
    _check_weights(model)
    _refuse_half_precision(model, concrete)
    output = concrete.outputs[0].shape
    if len(concrete.outputs) != 1 or output.rank != 2 or not output[1] or output[1] < 2:
        shapes = [tuple(t.shape) for t in concrete.outputs]
        raise ExportError(
            f"model {model.name!r}: expected one output [batch, classes] with 2 or more classes, got {shapes}."
            " Export the classifier only; a single sigmoid unit becomes Dense(2, activation='softmax')."
        )
    weights = [w for w in model.weights if "float" in str(w.dtype)]
    return Serving(
        input_name=name,
        input_shape=shape,
        input_dtype=input_dtype,
        head=_head(model, concrete, shape),
        num_classes=int(output[1]),
        control_flow=tuple(sorted({op.type for op in concrete.graph.get_operations()} & _CONTROL_FLOW)),
        parameters=sum(int(np.prod(w.shape)) for w in weights),
        kernel_weights=sum(int(np.prod(w.shape)) for w in weights if len(w.shape) > 1),
        weights_sha256=weights_hash(_named_weights(model)),
    )


def predict(model: Any, serving: Serving, x: np.ndarray) -> np.ndarray:
    """Returns Keras' own answer as ``float32[n, classes]``, the oracle every artifact is held against.

    The softmax is NumPy's in float64, so it shares no code with the exported graph.
    """
    rows = []
    for start in range(0, len(x), _BATCH):
        batch = np.asarray(x[start : start + _BATCH], np.float32)
        rows.append(np.asarray(model(batch, training=False), np.float64))
    outputs = np.concatenate(rows)
    if serving.head == "logits":
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        outputs = powers / powers.sum(axis=1, keepdims=True)
    return outputs.astype(np.float32)


def frames_for(serving: Serving, x: Any, what: str) -> np.ndarray:
    """Returns ``x`` as the frames the artifact takes, ``uint8`` or ``float32[n, ...]``, without changing a value.

    Raises:
        ExportError: Wrong shape, no frames, not finite, or pixels that are not whole numbers in 0..255.
    """
    x = np.asarray(x)
    if x.shape[1:] != serving.input_shape[1:] or len(x) == 0:
        want = ", ".join(map(str, serving.input_shape[1:]))
        raise ExportError(f"{what}: expected one or more frames of shape [n, {want}], got {list(x.shape)}")
    if x.dtype == object or x.dtype.kind not in "uifb":
        raise ExportError(f"{what}: expected numbers, got dtype {x.dtype}")
    if not np.isfinite(x).all():
        raise ExportError(f"{what}: {int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    if not serving.is_image:
        return x.astype(np.float32)
    if x.dtype != np.uint8:
        if x.min() < 0 or x.max() > 255 or (x != np.round(x)).any() or (x.dtype.kind == "f" and 0 < x.max() <= 1):
            raise ExportError(
                f"{what}: expected raw pixels, whole numbers 0..255, got {x.dtype} from {x.min():g} to {x.max():g}."
                " The model normalises inside itself; give the frames as the camera does (uint8)."
            )
        x = x.astype(np.uint8)
    return x


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


def _input_of(model: Any) -> tuple[str, tuple[int, ...]]:
    import keras

    if not isinstance(model, keras.Model):
        raise ExportError(f"expected a Keras 3 model, got {type(model).__module__}.{type(model).__name__}")
    if not model.built:
        raise ExportError(
            f"model {model.name!r} is not built, so it has no weights yet."
            " Give it an Input layer or call it on a frame."
        )
    inputs = getattr(model, "inputs", None)
    if inputs:
        found = [(tensor.name, tuple(tensor.shape), str(tensor.dtype)) for tensor in inputs]
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
        many = not shape or isinstance(shape, Mapping) or not all(d is None or isinstance(d, int) for d in shape)
        found = [("", tuple(shape), "float32")] if shape and not many else []
    if len(found) != 1:
        names = ", ".join(f"{name} {shape}" for name, shape, _ in found) or "unknown"
        raise ExportError(
            f"model {model.name!r}: expected exactly one input tensor, found {len(found)} ({names})."
            " Wrap the model so that it takes one frame."
        )
    name, shape, dtype = found[0]
    if not dtype.startswith(("float", "bfloat")):
        raise ExportError(f"model {model.name!r}: expected a float Input (Keras' default), got dtype {dtype}")
    if len(shape) < 2 or any(dim is None for dim in shape[1:]):
        raise ExportError(
            f"model {model.name!r}: input shape {shape} is open; a phone needs a fixed size."
            " Build it with Input((height, width, channels))."
        )
    return _input_name(name, len(shape)), (1, *(int(dim) for dim in shape[1:]))


def _input_name(name: str, rank: int) -> str:
    """Automatic Keras names count up with every model of the process, so they would change the bytes."""
    if rank == 4:
        return IMAGE_INPUT
    return name if name.isidentifier() and not _AUTOMATIC_NAME.match(name) else "features"


def _trace(model: Any, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    before = len(model.weights)
    try:
        with inner_functions_inlined():
            concrete = tf.function(lambda frame: model(frame, training=False)).get_concrete_function(
                tf.TensorSpec(shape, tf.float32)
            )
    except Exception as error:  # anything a user's layer raises while it is traced
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"model {model.name!r} cannot run on one frame {shape}: {type(error).__name__}:"
            f" {reason[0] if reason else ''}"
        ) from error
    if len(model.weights) != before:
        raise ExportError(
            f"model {model.name!r} made {len(model.weights) - before} new weights while it was traced: its layers were"
            " not built, so their values would be random. Call the model on a frame and train or load it first."
        )
    return concrete


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


def _named_weights(model: Any) -> dict[str, np.ndarray]:
    named: dict[str, np.ndarray] = {}
    for index, weight in enumerate(model.weights):
        # Subclassed models can hold two variables of one path; both must count.
        named[weight.path if weight.path not in named else f"{weight.path}#{index}"] = np.asarray(weight)
    return named


def _head(model: Any, concrete: Any, shape: tuple[int, ...]) -> str:
    """Finds the last activation in the traced graph, then checks it against what the model really answers."""
    last = _last_operation(concrete.graph.as_graph_def(), concrete.outputs[0].op.name)
    if last in ("Softmax", "Sigmoid"):
        return last.lower()
    if last.endswith("PartitionedCall"):
        raise ExportError(
            f"model {model.name!r}: its last activation is hidden inside a function call. Add"
            " Activation('softmax') as last layer, so that export knows what the outputs are."
        )
    # A softmax written out by hand ends in a division. Adding a second one would flatten every answer.
    probe = np.random.default_rng(0).integers(0, 256, (8, *shape[1:])).astype(np.float32)
    answers = np.asarray(model(probe, training=False), np.float64)
    if (answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < 1e-3:
        return "softmax"
    return "logits"


def _last_operation(graph: Any, name: str) -> str:
    """Returns the type of the operation that computes ``name``, seen through casts and the like."""
    nodes = {node.name: node for node in graph.node}
    while name in nodes and nodes[name].op in _PASS_THROUGH:
        name = nodes[name].input[0].split(":")[0]
    return str(nodes[name].op) if name in nodes else "Placeholder"
