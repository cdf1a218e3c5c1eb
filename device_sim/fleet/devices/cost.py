"""What training a Keras model costs, counted from its layers: no conversion, no run, no TensorFlow of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from device_sim.fleet.devices.timing import Workload
from fl_mobile.errors import ModelError
from fl_mobile.models.private_api import calls_of


def workload_of(model: Any, input_shape: Sequence[int], *, optimizer_slots: int = 0) -> Workload:
    """Returns the workload of a built Keras model with channels last.

    Counted are the products of kernels: dense, convolution of any kind, recurrent. A kernel meets every position of its
    layer's result (transposed: of its input; recurrent: every step). Attention also multiplies every query with every
    key, and every score with a value; an embedding that scores tokens, every vector with every token. Layers before the
    first that trains are only run forward. Activations and normalisation are left out, and `embeddings` are look-ups.

    Args:
        input_shape: Of one example; a subclassed model has no graph of layers until it is called on that.
        optimizer_slots: Numbers the local optimizer keeps per weight.

    Raises:
        ModelError: A layer's size depends on its input.
    """
    if not getattr(model, "inputs", None):
        _call_symbolically(model, input_shape)
    forward = frozen = kept = widest = 0
    training = False
    for layer in _leaves(model):
        training = training or bool(layer.trainable_variables)
        macs = sum(prod(kernel.shape) for kernel in _kernels(layer))
        macs = (macs and macs * prod(_positions(layer))) + _attention(layer) + _scores(layer)
        numbers = sum(prod(_shape(tensor)) for _, outputs in calls_of(layer) for tensor in outputs)
        forward += macs
        frozen += 0 if training else macs
        kept += numbers if training else 0
        widest = max(widest, numbers)
    parameters = sum(prod(variable.shape) for variable in model.weights)
    return Workload(
        forward_macs=forward,
        parameters=parameters,
        activations=max(kept, widest),
        optimizer_slots=optimizer_slots,
        frozen_macs=frozen,
    )


def _call_symbolically(model: Any, input_shape: Sequence[int]) -> None:
    """Gives the layers of a subclassed model their inputs and outputs; ``model(…)`` would hide what is inside."""
    import keras

    model.call(keras.Input(tuple(input_shape)))


def _leaves(model: Any) -> Iterator[Any]:
    """Yields layers in the order they run, those of models inside the model too."""
    for layer in model.layers:
        if hasattr(layer, "layers") and hasattr(layer, "inputs"):
            yield from _leaves(layer)
        else:
            yield layer


def _kernels(layer: Any) -> list[Any]:
    return [v for v in layer.variables if len(v.shape) >= 2 and v.path.rsplit("/", 1)[-1].endswith("kernel")]


def _attention(layer: Any) -> int:
    """Returns the products of scores and of values; keys and values have as many positions as the second input."""
    kind = type(layer).__name__
    if kind not in ("MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"):
        return 0
    queries, values = (_shape(tensor) for tensor in _tensors(layer.input)[:2])
    pairs = prod(queries[:-1]) * values[-2]
    if kind == "MultiHeadAttention":
        return pairs * int(layer.num_heads * (layer.key_dim + layer.value_dim))
    if kind == "GroupedQueryAttention":
        return pairs * int(2 * layer.num_query_heads * layer.head_dim)
    return pairs * values[-1] * (2 if kind == "Attention" else 1)  # an additive score is a sum


def _scores(layer: Any) -> int:
    """Returns the products of an embedding that also tells tokens apart, `SharedEmbedding`: each vector meets all."""
    table = getattr(layer, "embeddings", None)
    if table is None:
        return 0
    made = [told[0] for given, told in calls_of(layer) if len(told[0].shape) == len(given[0].shape)]  # not a look-up
    return sum(prod(_shape(one)[:-1]) for one in made) * prod(table.shape)


def _positions(layer: Any) -> tuple[int, ...]:
    kind = type(layer).__name__
    if kind.endswith("Transpose"):
        return _shape(_tensors(layer.input)[0])[:-1]
    if hasattr(layer, "return_sequences"):
        return _shape(_tensors(layer.input)[0])[:1]
    return _shape(_tensors(layer.output)[0])[:-1]


def _tensors(found: Any) -> list[Any]:
    """Returns the tensors of a layer's input or output: with a mask or a state it takes or gives several."""
    if isinstance(found, dict):
        found = list(found.values())
    return [tensor for one in found for tensor in _tensors(one)] if isinstance(found, list | tuple) else [found]


def _shape(tensor: Any) -> tuple[int, ...]:
    shape: tuple[int | None, ...] = tuple(tensor.shape)[1:]
    if None in shape:
        raise ModelError(f"'{tensor.name}' has shape {shape}: the cost of training depends on the input. Fix its size.")
    return tuple(int(size or 0) for size in shape)
