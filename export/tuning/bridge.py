"""A Keras 3 model and its twin in ``tf_keras``, the only Keras that TFMOT knows; weights cross by variable path.

```
Keras 3 ──layer by layer, LAYOUTS──▶ tf_keras twin ──same answers? proven──▶ TFMOT ──by path──▶ Keras 3 copy
```
TFMOT has no plan for Keras 3 (model-optimization#1119, #1181, #1270). Both Kerases live in one process without
``TF_USE_LEGACY_KERAS``, which would exchange ``tf.keras`` under everybody else's feet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_mobile.errors import ExportError, nearest
from fl_mobile.models.private_api import calls_in_graph, functional_graph, run_graph
from fl_mobile.tensors import Tensors

QUANTIZED = "quant_"
"""What TFMOT puts before the name of a layer it trains under fake quantisation."""

_TOLERANCE = 1e-4
_LEGACY_SWITCH = "TF_USE_LEGACY_KERAS"


@dataclass(frozen=True)
class Layout:
    """How one Keras 3 layer is written in ``tf_keras``.

    Attributes:
        keys: Keys of its config that both Kerases read alike.
        variables: Keras 3 variable name → ``tf_keras`` variable name.
        only: Config keys that have no counterpart, with the one value that means the same as their absence.
    """

    keys: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)


_KERNEL = {"kernel": "kernel", "bias": "bias"}
_CONV = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation", "use_bias")
_POOL = ("pool_size", "strides", "padding", "data_format")

# No recurrent, attention or preprocessing layers: TFMOT cannot tune them or they do not mean the same in both.
LAYOUTS: dict[str, Layout] = {
    "Activation": Layout(("activation",)),
    "Add": Layout(),
    "Average": Layout(),
    "AveragePooling1D": Layout(_POOL),
    "AveragePooling2D": Layout(_POOL),
    "BatchNormalization": Layout(
        ("axis", "momentum", "epsilon", "center", "scale"),
        {name: name for name in ("gamma", "beta", "moving_mean", "moving_variance")},
        {"synchronized": False, "renorm": False},
    ),
    "Concatenate": Layout(("axis",)),
    "Conv1D": Layout((*_CONV, "groups"), _KERNEL),
    "Conv2D": Layout((*_CONV, "groups"), _KERNEL),
    "Dense": Layout(("units", "activation", "use_bias"), _KERNEL, {"lora_rank": None}),
    "DepthwiseConv2D": Layout(
        (*(key for key in _CONV if key != "filters"), "depth_multiplier"),
        {"kernel": "depthwise_kernel", "bias": "bias"},
    ),
    "Dropout": Layout(("rate",), only={"noise_shape": None}),
    "Flatten": Layout(("data_format",)),
    "GlobalAveragePooling1D": Layout(("data_format", "keepdims")),
    "GlobalAveragePooling2D": Layout(("data_format", "keepdims")),
    "GlobalMaxPooling2D": Layout(("data_format", "keepdims")),
    "MaxPooling1D": Layout(_POOL),
    "MaxPooling2D": Layout(_POOL),
    "Maximum": Layout(),
    "Multiply": Layout(),
    "ReLU": Layout(("max_value", "negative_slope", "threshold")),
    "Rescaling": Layout(("scale", "offset")),
    "Reshape": Layout(("target_shape",)),
    "Softmax": Layout(("axis",)),
    "SpatialDropout2D": Layout(("rate",)),
    "Subtract": Layout(),
    "ZeroPadding2D": Layout(("padding", "data_format")),
}


@dataclass(frozen=True)
class Twin:
    """A Keras 3 model's double.

    Attributes:
        model: The ``tf_keras`` functional model: same layer names, same weights, same answers.
        places: Keras 3 ``variable.path`` → (layer name, ``tf_keras`` variable name).
        max_abs_diff: Largest difference of the two models' answers on the frames that proved them equal.
    """

    model: Any
    places: dict[str, tuple[str, str]]
    max_abs_diff: float


def tf_keras_and_tfmot() -> tuple[Any, Any]:
    """Returns ``tf_keras`` and ``tensorflow_model_optimization``, leaving this process on Keras 3.

    TFMOT sets ``TF_USE_LEGACY_KERAS`` when it is imported. Child processes would inherit it and ``tf.keras`` would
    become another library, so ``tf.keras`` is settled first and the variable put back.

    Raises:
        ExportError: One of them is not installed.
    """
    import tensorflow as tf

    before = os.environ.get(_LEGACY_SWITCH)
    try:
        _ = tf.keras.__name__  # settles the lazy loader while the switch is still as the user has it
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ImportError as error:
        raise ExportError(
            f"tuned recipes need {error.name}: pip install 'tensorflow-model-optimization>=0.8' tf_keras"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_LEGACY_SWITCH, None)
        else:
            os.environ[_LEGACY_SWITCH] = before
    return tf_keras, tfmot


def make_twin(model: Any, frames: np.ndarray) -> Twin:
    """Returns the ``tf_keras`` twin of ``model``, proven to answer alike on ``frames``.

    Args:
        model: A built Keras 3 Sequential or functional model of the layers in ``LAYOUTS``, each used once.
        frames: Real frames ``[n, ...]``; answers are compared on them.

    Raises:
        ExportError: The model cannot be bridged; the message names the layer and why.
    """
    function = graph_of(model)
    _refuse(model, function)
    tf_keras, _ = tf_keras_and_tfmot()
    doubles = {id(op): _double(op, tf_keras) for op in function.operations if type(op).__name__ != "InputLayer"}
    entry = function.inputs[0]
    frame = tf_keras.Input(tuple(entry.shape[1:]), name=entry.name)
    try:
        answer = run_graph(function, [frame], lambda op: doubles[id(op)])
        twin = tf_keras.Model(frame, answer, name=model.name)
        places = _copy_weights(function, twin)
    except (TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"model {model.name!r} cannot be rebuilt in tf_keras: {error}") from error
    return Twin(twin, places, prove_equal(model, twin, frames))


def weights_of(twin: Twin, tuned: Any) -> Tensors:
    """Returns the weights of ``tuned``, a descendant of ``twin.model``, by Keras 3 variable path.

    TFMOT wraps layers and renames them, so a variable is found by its layer's own name and its own.

    Raises:
        ExportError: A variable is not there any more: TFMOT rewrote its layer.
    """
    values = {
        (layer.name.removeprefix(QUANTIZED), variable.name.split(":")[0].rpartition("/")[2]): variable.numpy()
        for layer in tuned.layers
        for variable in layer.weights
    }
    missing = [path for path, place in twin.places.items() if place not in values]
    if missing:
        raise ExportError(f"TFMOT rewrote the layer of {', '.join(missing[:3])}; its tuned weights cannot come back")
    return {path: np.asarray(values[place], np.float32) for path, place in twin.places.items()}


def with_weights(model: Any, weights: Tensors) -> Any:
    """Returns a Keras 3 copy of ``model`` that holds ``weights``; ``model`` itself is not touched.

    Raises:
        ExportError: Paths or shapes differ from the model's.
    """
    import keras

    copy = keras.models.clone_model(model)
    own = [(weight.path, tuple(weight.shape)) for weight in model.weights]
    if own != [(path, value.shape) for path, value in weights.items()]:
        raise ExportError(f"model {model.name!r}: the tuned weights are not its own; bridge it again")
    for variable, value in zip(copy.weights, weights.values(), strict=True):
        if tuple(variable.shape) != value.shape:
            raise ExportError(f"model {model.name!r}: its copy has {variable.path!r} of shape {tuple(variable.shape)}")
        variable.assign(value)
    return copy


def graph_of(model: Any) -> Any:
    """Returns the functional graph behind a Keras 3 ``model`` of one input and one output.

    Raises:
        ExportError: It has none, because it is subclassed or not built, or it has several inputs or outputs.
    """
    import keras

    if not isinstance(model, keras.Model) or not model.built:
        raise ExportError(f"expected a built Keras 3 model, got {type(model).__module__}.{type(model).__name__}")
    function = functional_graph(model)
    if function is None:
        raise ExportError(
            f"model {model.name!r} is subclassed ({type(model).__name__}): its layers are known, but not what happens"
            " between them. Write it as a functional model, or use recipes without tuning."
        )
    if len(function.inputs) != 1 or len(function.outputs) != 1:
        raise ExportError(
            f"model {model.name!r}: expected one input and one output to tune it,"
            f" found {len(function.inputs)} and {len(function.outputs)}. Use recipes without tuning."
        )
    return function


def check_bridged(model: Any) -> None:
    """Raises ``ExportError`` when ``make_twin`` would refuse ``model``; takes no time."""
    _refuse(model, graph_of(model))


def _refuse(model: Any, function: Any) -> None:
    for operation in function.operations:
        _refuse_unknown(model, operation)
    used = [id(operation) for operation in calls_in_graph(function)]
    twice = [op.name for op in function.operations if used.count(id(op)) > 1]
    if twice:
        raise ExportError(f"layer {twice[0]!r} is shared: used more than once, which TFMOT cannot tune")


def _refuse_unknown(model: Any, operation: Any) -> None:
    import keras

    kind = type(operation).__name__
    if kind == "InputLayer":
        return
    if not isinstance(operation, keras.layers.Layer):
        raise ExportError(f"model {model.name!r} calls keras.ops.{kind} between layers, which tf_keras has not")
    if isinstance(operation, keras.Model):
        raise ExportError(f"layer {operation.name!r} is a model inside the model; bridge needs one flat graph")
    if kind not in LAYOUTS or type(operation) is not getattr(keras.layers, kind, None):
        raise ExportError(
            f"layer {operation.name!r} ({kind}) cannot be bridged to tf_keras, which TFMOT needs."
            f"{nearest(kind, LAYOUTS)}"
        )
    if operation.dtype_policy.name != "float32":
        raise ExportError(f"layer {operation.name!r} computes in {operation.dtype_policy.name}, expected float32")
    config = operation.get_config()
    for key, value in LAYOUTS[kind].only.items():
        if config.get(key, value) != value:
            raise ExportError(f"layer {operation.name!r} ({kind}): tf_keras has no {key}={config[key]!r}")
    if not isinstance(config.get("activation", ""), str):
        raise ExportError(f"layer {operation.name!r} ({kind}): its activation is the user's own function")


def _double(layer: Any, tf_keras: Any) -> Any:
    kind, config = type(layer).__name__, layer.get_config()
    arguments = {key: config[key] for key in LAYOUTS[kind].keys if key in config}
    if "rate" in arguments:
        arguments["seed"] = 1  # without one, tuning twice would give two models
    make: Callable[..., Any] = getattr(tf_keras.layers, kind)
    try:
        return make(name=layer.name, **arguments)
    except (TypeError, ValueError) as error:
        raise ExportError(f"layer {layer.name!r} ({kind}) cannot be bridged to tf_keras: {error}") from error


def _copy_weights(function: Any, twin: Any) -> dict[str, tuple[str, str]]:
    places = {}
    for layer in function.operations:
        if not layer.weights:
            continue
        names, double = LAYOUTS[type(layer).__name__].variables, twin.get_layer(layer.name)
        targets = {v.name.split(":")[0].rpartition("/")[2]: v for v in double.weights}
        for weight in layer.weights:
            name = names[weight.name]
            targets[name].assign(weight.numpy())
            places[weight.path] = (layer.name, name)
        double.trainable = layer.trainable
    return places


def prove_equal(model: Any, twin: Any, frames: np.ndarray) -> float:
    """Returns the largest difference between the answers of ``model`` and its ``tf_keras`` double on ``frames``.

    Answers, not weights: weights that changed places, or a key with another meaning, show only here.

    Raises:
        ExportError: They differ by more than float32 rounding.
    """
    x = np.asarray(frames, np.float32)
    ours, theirs = np.asarray(model(x, training=False)), np.asarray(twin(x, training=False))
    if ours.shape != theirs.shape:
        raise ExportError(f"model {model.name!r} answers {ours.shape}, its tf_keras twin {theirs.shape}")
    difference = float(np.abs(ours - theirs).max())
    allowed = _TOLERANCE * max(1.0, float(np.abs(ours).max()))
    if not difference <= allowed:
        raise ExportError(
            f"model {model.name!r} and its tf_keras twin differ by {difference:.3g} on {len(x)} frames, allowed"
            f" {allowed:.3g}: a layer means something else there. Use recipes without tuning and report this model."
        )
    return difference
