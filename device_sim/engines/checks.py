"""What training would stumble over, looked for before round 1: outputs, loss, labels, tokens, precision, draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_sim.engines.trainers.draws import keyed_draws
from fl_mobile.errors import DataError, ModelError
from fl_mobile.local.losses import check_answers_fit
from fl_mobile.models.ends import Port, by_port
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.models.telling import reason_of, where
from fl_mobile.tasks.table import CLASSIFICATION

_STATEFUL_DRAWS = ("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle")


def check_training(
    model: Any,
    loss: str,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    classes: int,
    *,
    task: str = CLASSIFICATION,
) -> None:
    """Refuses what could not be trained, with what to change.

    Args:
        model: A built Keras model.
        loss: Row of `LOSSES`.
        parts: Name → examples and targets of every part of the data that is at hand.
        classes: How many classes, tags or numbers the data has.
        task: Row of `fl_mobile.tasks.TASKS`.

    Raises:
        ModelError: The model does not fit the loss, the classes or 32-bit training.
        DataError: Tokens outside a vocabulary.
    """
    check_precision(model)
    check_tokens(model, {name: x for name, (x, _) in parts.items()})
    _check_extremes(model, {name: x for name, (x, _) in parts.items()})
    x, y = next(iter(parts.values()))
    graph, shape = _traced(model, x[:2])
    check_answers_fit(task, loss, shape, y.shape[1:], classes, what=f"model '{model.name}'")
    drawing = [node.name for node in _every_node(graph) if node.op in _STATEFUL_DRAWS]
    if drawing:
        raise _drawing(model, f"node {drawing[0]}")


def _drawing(model: Any, text: str) -> ModelError:
    return ModelError(
        f"model '{model.name}'{where(model, text)} draws with tf.random, which differs from run to run: draw with"
        " keras.random and a keras.random.SeedGenerator that the layer keeps"
    )


def check_precision(model: Any) -> None:
    """Raises `ModelError` for layers that compute in anything but ``float32``, as phones and updates do not."""
    for layer in flatten_layers(model):
        if layer.compute_dtype not in ("float32", None) and (layer.weights or layer.compute_dtype != "uint8"):
            raise ModelError(
                f"layer '{layer.name}' ({type(layer).__name__}) computes in {layer.compute_dtype} (dtype policy"
                f" '{layer.dtype_policy.name}'): federated training and phones use float32. Build the model with"
                " keras.config.set_dtype_policy('float32')"
            )


def check_tokens(model: Any, parts: Mapping[str, np.ndarray]) -> None:
    """Raises `DataError` for examples with numbers that an embedding of the model's input has no row for."""
    _check_tokens(model, {id(tensor) for tensor in getattr(model, "inputs", None) or []}, parts)


def _check_tokens(model: Any, inputs: set[int], parts: Mapping[str, np.ndarray]) -> None:
    for layer in flatten_layers(model):
        if type(layer).__name__ != "Embedding" or not _reads(layer, inputs):
            continue
        for name, x in parts.items():
            low, high = x.min(), x.max()
            if low < 0 or high >= layer.input_dim:
                odd = low if low < 0 else high
                raise DataError(
                    f"{name}: token {odd:g} is outside the vocabulary of layer '{layer.name}', 0 to"
                    f" {layer.input_dim - 1}: give Embedding an input_dim of {int(high) + 1} or more, or map such"
                    " tokens to one of its rows"
                )
            if x.dtype.kind == "f" and not np.array_equal(x, np.rint(x)):
                raise DataError(
                    f"{name}: layer '{layer.name}' looks up whole token numbers, the examples hold fractions:"
                    " tokenise the text, or leave the Embedding out"
                )


def check_tokens_of_ports(model: Any, ports: Sequence[Port], parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """The same of an author's model with several inputs, each with the embeddings that read it.

    Args:
        model: The author's model.
        ports: Its inputs.
        parts: Name → inputs by name.
    """
    tensors = by_port(model, ports)
    for port in ports:
        own = {f"{name}, input '{port.name}'": part[port.name] for name, part in parts.items()}
        _check_tokens(model, {id(tensors[port.name])}, own)


def _reads(layer: Any, inputs: set[int]) -> bool:
    """Returns whether a layer is seen to take an input of the model itself."""
    try:
        taken = layer.input
    except (AttributeError, ValueError):
        return False
    return bool({id(tensor) for tensor in (taken if isinstance(taken, list) else [taken])} & inputs)


def _check_extremes(model: Any, parts: Mapping[str, np.ndarray]) -> None:
    """Raises `DataError` for a part whose least or largest number the model fails on, wherever in it that is."""
    for name, x in parts.items():
        flat = x.reshape(len(x), -1)
        rows = x[sorted({int(flat.max(axis=1).argmax()), int(flat.min(axis=1).argmin())})]
        try:
            model(rows.astype(np.float32) if rows.dtype == np.uint8 else rows, training=False)
        except Exception as error:  # the layers' own code may raise anything
            raise DataError(
                f"{name}: model '{model.name}' fails on examples with numbers from {x.min():g} to {x.max():g}"
                f"{where(model, str(error))}: {reason_of(error)}"
            ) from error


def _traced(model: Any, x: np.ndarray) -> tuple[Any, tuple[int, ...]]:
    """Returns the graph of one training call and the shape of its answer to an example."""
    import tensorflow as tf

    from device_sim.engines.trainers.steps import as_input
    from fl_mobile.models.heads import check_answers

    def call(x: Any, seed: Any, step: Any) -> Any:
        with keyed_draws(model, seed, step):
            return model(as_input(x), training=True)

    scalar = tf.TensorSpec((), tf.int32)
    examples = tf.TensorSpec((None, *x.shape[1:]), tf.as_dtype(x.dtype))
    try:
        concrete = tf.function(call, autograph=False).get_concrete_function(examples, scalar, scalar)
    except Exception as error:  # the layers' own code may raise anything
        if "Random ops require a seed" in str(error):
            raise _drawing(model, str(error)) from error
        raise ModelError(
            f"model '{model.name}'{where(model, str(error))} cannot train on examples {x.dtype}{x.shape[1:]}:"
            f" {reason_of(error)}"
        ) from error
    shapes = [tuple(out.shape) for out in tf.nest.flatten(concrete.structured_outputs)]
    check_answers(model, shapes)
    return concrete.graph, tuple(int(size or 0) for size in shapes[0][1:])


def _every_node(graph: Any) -> list[Any]:
    """Returns the nodes of a graph and of the functions it calls."""
    definition = graph.as_graph_def()
    return [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
