"""The `tf.Module` behind a training program: variables, and one traced function a signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.training.autodiff import Tape, cells_for, replay
from export.training.layers import Batch, traced_for_training
from export.training.options import Options, batch_specs
from export.training.steps import accumulate_signature, apply_signature, empty, train_signature
from export.training.variables import counter, make_variable
from fl_mobile.errors import ExportError
from fl_mobile.local.losses import evaluation_loss, right_answers, training_loss
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import keras_bridge
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.models.telling import reason_of, where


def weight_name(index: int) -> str:
    """Returns the tensor name of the ``index``-th travelling weight in ``get_weights`` and ``set_weights``."""
    return f"w{index:03d}"


def trace_model(model: Any, options: Options, *, training: bool) -> Any:
    """Returns the ``FuncGraph`` x, y, mask, seed, step → mean loss, summed loss, right answers, outputs."""
    import tensorflow as tf

    shape = [options.batch_size, *options.input_shape]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def forward(x: Any, y: Any, mask: Any, seed: Any, step: Any) -> Any:
        x = tf.cast(x, tf.float32) if options.input_dtype == "uint8" else x
        with traced_for_training(model, Batch(mask, seed, step), training=training):
            out = model(x, training=training)
        logits, task = options.from_logits, options.task
        losses = (training_loss if training else evaluation_loss)(options, y, out)
        total = tf.reduce_sum(losses * mask)
        mean = total / tf.maximum(tf.reduce_sum(mask), 1.0)
        for extra in model.losses:
            mean = mean + extra
        right = tf.cast(right_answers(options.loss, y, out, from_logits=logits, task=task), tf.float32)
        return mean, total, tf.reduce_sum(right * mask), out

    batch = options.batch_size
    specs = [tf.TensorSpec(shape, tf.as_dtype(options.input_dtype)), batch_specs(options)["y"]]
    specs += [tf.TensorSpec([batch], tf.float32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)]
    return _traced(model, forward, specs)


def _traced(model: Any, forward: Any, specs: Sequence[Any]) -> Any:
    """Returns the graph of a function of a model, which knows the names of the model's layers.

    Raises:
        ExportError: A layer cannot be traced, because it branches on data or takes another shape.
    """
    try:
        graph = forward.get_concrete_function(*specs).graph
    except ExportError:
        raise
    except Exception as error:  # an author's own code
        raise ExportError(
            f"model '{model.name}'{where(model, str(error))} cannot be traced for phones, which need fixed shapes and"
            f" no branches on data: {reason_of(error)}"
        ) from error
    graph.layer_names = frozenset(layer.name for layer in flatten_layers(model, include_self=False))
    return graph


def make_module(model: Any, options: Options) -> tuple[Any, dict[str, Any]]:
    """Returns the module that owns the variables, and its signatures by name.

    Raises:
        ExportError: The graph has an operation the phone cannot train.
    """
    import tensorflow as tf

    module = tf.Module()
    travelling = keras_bridge.travelling_variables(model)
    module.weights = [make_variable(v.shape, weight_name(i)) for i, v in enumerate(travelling)]
    # A tuple of plain functions: Keras may share one constraint between weights, and the module tracks what is listed.
    module.constraints = tuple((v.constraint, v.path) for v in travelling)
    module.trainable = [i for i, v in enumerate(travelling) if v.trainable]
    names = local_optimizer(options.optimizer).slots
    module.slots = [[make_variable(travelling[i].shape) for _ in names] for i in module.trainable]
    module.steps = counter()
    anchors = module.trainable if options.proximal else []
    module.anchors = [make_variable(travelling[i].shape) for i in anchors]
    corrections = module.trainable if options.correction else []
    module.corrections = [make_variable(travelling[i].shape) for i in corrections]
    sums = module.trainable if options.accumulate else []
    module.sums = [make_variable(travelling[i].shape) for i in sums]
    module.summed = counter()
    module.updates = counter() if options.accumulate else module.steps
    runs = {t: trace_model(model, options, training=t) for t in (True, False)}
    signatures = {
        "train": train_signature(module=module, model=model, travelling=travelling, graph=runs[True], options=options),
        "evaluate": _evaluate(module=module, model=model, travelling=travelling, graph=runs[False], options=options),
        "infer": _infer(module=module, model=model, travelling=travelling, graph=runs[False], options=options),
        "get_weights": _get_weights(module),
        "set_weights": _set_weights(module),
    }
    if options.accumulate:
        signatures["accumulate"] = accumulate_signature(
            module=module, model=model, travelling=travelling, graph=runs[True], options=options
        )
        signatures["apply"] = apply_signature(module, options)
    if options.correction:
        signatures["set_correction"] = _set_correction(module)
    return module, signatures


def infer_alone(model: Any, options: Options, x: np.ndarray) -> np.ndarray:
    """Returns what a program of nothing but inference answers; ``model`` may be part of another, of any output shape.

    Raises:
        ExportError: It does not convert.
    """
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from export.training.convert import convert_module

    module, weights = tf.Module(), [v for v in model.variables if "float" in str(v.dtype)]
    module.weights = [make_variable(v.shape, weight_name(i)) for i, v in enumerate(weights)]
    module.trainable, module.anchors, module.slots, module.corrections, module.sums = [], [], [], [], []
    module.steps = counter()

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def forward(x: Any) -> Any:
        x = tf.cast(x, tf.float32) if options.input_dtype == "uint8" else x
        zero, ones = tf.constant(0), tf.ones([options.batch_size])
        with traced_for_training(model, Batch(ones, zero, zero), training=False):
            return (model(x, training=False),)

    graph = _traced(model, forward, [batch_specs(options)["x"]])

    def infer(x: Any) -> dict[str, Any]:
        return {"outputs": _run_frozen(module=module, model=model, travelling=weights, graph=graph, feeds=[x])[0]}

    signatures = {"infer": tf.function(infer, autograph=False).get_concrete_function(x=batch_specs(options)["x"])}
    if weights:
        signatures["set_weights"] = _set_weights(module)
    program = Interpreter(model_content=convert_module(module, signatures, model.name), num_threads=1)
    if weights:
        program.get_signature_runner("set_weights")(**{weight_name(i): v.numpy() for i, v in enumerate(weights)})
    return np.asarray(program.get_signature_runner("infer")(x=x)["outputs"])


def _run_frozen(module: Any, model: Any, travelling: Sequence[Any], graph: Any, feeds: Sequence[Any]) -> Any:
    """Replays the inference graph without gradients; moving statistics are used, not changed."""
    tape, values = Tape(), [v.read_value() for v in module.weights]
    cells, captured = cells_for(graph=graph, model=model, travelling=travelling, values=values, tape=tape)
    return replay(graph, [*feeds, *captured], cells, tape)


def _evaluate(module: Any, model: Any, travelling: Sequence[Any], graph: Any, options: Options) -> Any:
    import tensorflow as tf

    zero = np.int32(0)

    def evaluate(x: Any, y: Any, mask: Any) -> dict[str, Any]:
        feeds = [x, y, mask, tf.constant(zero), tf.constant(zero)]
        _, total, right, _ = _run_frozen(module=module, model=model, travelling=travelling, graph=graph, feeds=feeds)
        return {"loss_sum": tf.reshape(total, [1]), "correct": tf.reshape(right, [1])}

    return tf.function(evaluate, autograph=False).get_concrete_function(**batch_specs(options))


def _infer(module: Any, model: Any, travelling: Sequence[Any], graph: Any, options: Options) -> Any:
    import tensorflow as tf

    batch, targets = options.batch_size, batch_specs(options)["y"]

    def infer(x: Any) -> dict[str, Any]:
        feeds = [x, tf.zeros(targets.shape, targets.dtype), tf.ones([batch]), tf.constant(0), tf.constant(0)]
        return {"outputs": _run_frozen(module=module, model=model, travelling=travelling, graph=graph, feeds=feeds)[3]}

    return tf.function(infer, autograph=False).get_concrete_function(x=batch_specs(options)["x"])


def _get_weights(module: Any) -> Any:
    """One input although none is needed: Java's ``runSignature`` refuses an empty map."""
    import tensorflow as tf

    def get_weights(dummy: Any) -> dict[str, Any]:
        read = {weight_name(i): tf.identity(v.read_value()) for i, v in enumerate(module.weights)}
        return read | {"echo": dummy + 1.0}

    return tf.function(get_weights, autograph=False).get_concrete_function(tf.TensorSpec([1], tf.float32, "dummy"))


def _set_weights(module: Any) -> Any:
    """Writes every weight and starts afresh: optimizer state, step count, proximal anchor and correction."""
    import tensorflow as tf

    def set_weights(**weights: Any) -> dict[str, Any]:
        values = [weights[weight_name(i)] for i in range(len(module.weights))]
        for variable, value in zip(module.weights, values, strict=True):
            variable.assign(value)
        for i, anchor in zip(module.trainable, module.anchors, strict=False):
            anchor.assign(values[i])
        for state in [*[s for slots in module.slots for s in slots], *module.corrections]:
            state.assign(tf.zeros(state.shape))
        module.steps.assign(0.0)
        if module.sums:
            module.updates.assign(0.0)
            empty(module)
        return {"echo": tf.reshape(tf.reshape(values[0], [-1])[:1], [1]) + 1.0}

    specs = {weight_name(i): tf.TensorSpec(v.shape, tf.float32, weight_name(i)) for i, v in enumerate(module.weights)}
    return tf.function(set_weights, autograph=False).get_concrete_function(**specs)


def _set_correction(module: Any) -> Any:
    import tensorflow as tf

    def set_correction(**values: Any) -> dict[str, Any]:
        for i, correction in zip(module.trainable, module.corrections, strict=True):
            correction.assign(values[weight_name(i)])
        first = values[weight_name(module.trainable[0])]
        return {"echo": tf.reshape(first, [-1])[:1] + 1.0}

    specs: dict[str, Any] = {}
    for i in module.trainable:
        specs[weight_name(i)] = tf.TensorSpec(module.weights[i].shape, tf.float32, weight_name(i))
    return tf.function(set_correction, autograph=False).get_concrete_function(**specs)
