"""How Keras layers behave while the training graph is traced; the user's model is put back as it was afterwards.

| layer                    | while tracing                                                             |
|--------------------------|---------------------------------------------------------------------------|
| BatchNormalization       | statistics of the real examples of a short batch; one fused operation      |
| Dropout, SpatialDropout  | the integer mask of `dropout.py`, from the program's seed and step         |
| LSTM, GRU, SimpleRNN     | unrolled over their fixed number of steps; dropout as above                |
| whatever else draws      | the numbers of `draws.py`, from the program's seed and step                |
| RandomCrop               | gathers rows and columns, whose number is fixed                            |
| activity regularisers    | of the real examples of a short batch                                      |
| a few others             | refused by name, with the nearest form that trains                         |
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.model.recurrent import unrolled
from export.model.swapping import swap
from export.training.draws import drawn_tensor, numbered_draws
from export.training.dropout import keep_tensor, keys_of
from export.training.recurrent import Keep, masks_of_cells
from fl_mobile.errors import ExportError
from fl_mobile.models.draws import Answer, Draw, answered_draws
from fl_mobile.models.private_api import flatten_layers

REFUSED = {
    "ConvLSTM1D": "use Conv1D followed by LSTM",
    "ConvLSTM2D": "use Conv2D followed by LSTM",
    "Conv3D": "use Conv2D over frames",
    "Conv3DTranspose": "use Conv2DTranspose over frames",
    "Lambda": "write it as a Layer whose call uses keras.ops",
    "SpectralNormalization": "use the layer it wraps",
}
"""Layer class → the nearest supported form. Everything else is decided by the operations it traces to."""


DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")


@dataclass(frozen=True)
class Batch:
    """The traced inputs that layers need besides their own.

    Attributes:
        mask: ``float32[batch]``, 1 for a real example and 0 for padding.
        seed: ``int32`` scalar.
        step: ``int32`` scalar.
    """

    mask: Any
    seed: Any
    step: Any


def check_layers(model: Any) -> None:
    """Refuses layers that cannot train on a phone.

    Raises:
        ExportError: Names the layer and what to use instead.
    """
    for layer in flatten_layers(model):
        kind = type(layer).__name__
        if kind in REFUSED:
            raise ExportError(f"layer '{layer.name}' ({kind}) cannot be trained on a phone: {REFUSED[kind]}")
        if kind == "BatchNormalization" and (layer.renorm or layer.axis not in (-1, _last(layer))):
            raise ExportError(f"layer '{layer.name}': BatchNormalization must normalise the last axis, without renorm")
        if (cost := getattr(layer, "activity_regularizer", None)) is not None and _counts_zeros(cost):
            raise ExportError(
                f"layer '{layer.name}' ({kind}): its activity regulariser counts rows of zeros, so the padding of a"
                " short batch would change it. Use L1, L2 or another sum over examples"
            )
        if getattr(layer, "compute_dtype", None) in ("float16", "bfloat16", "float64"):
            raise ExportError(
                f"layer '{layer.name}' ({kind}) computes in {layer.compute_dtype}, and phones train in float32: build"
                " the model under keras.config.set_dtype_policy('float32')"
            )
        if getattr(layer, "stateful", False) and hasattr(layer, "unroll"):
            raise ExportError(f"layer '{layer.name}' ({kind}) is stateful: build it with stateful=False")


def dropout_layers(model: Any) -> int:
    """Returns how many masks a step draws."""
    return len(dropouts_of(model)) + sum(masks.count for masks in masks_of_cells(model, 0))


def dropouts_of(model: Any) -> list[Any]:
    """Returns the Dropout layers that draw, in the order that numbers their masks; those of cells follow."""
    return [layer for layer in flatten_layers(model) if type(layer).__name__ in DROPOUTS and layer.rate > 0]


def _last(layer: Any) -> int:
    return int(layer.input_spec.ndim) - 1


@contextlib.contextmanager
def traced_for_training(model: Any, batch: Batch, *, training: bool) -> Iterator[None]:
    """Lets the model's layers run their device form inside the block.

    Raises:
        ExportError: At its end, if a layer drew when it should only answer, or added a loss that counts padding.
    """
    undo = _swap_dropout(model, batch.seed, batch.step)
    drawing: list[str] = []
    adding: list[str] = []
    try:
        for layer in flatten_layers(model):
            kind = type(layer).__name__
            if kind == "BatchNormalization" and layer.trainable:
                undo.append(swap(layer, "call", _batch_norm(layer, batch)))
            elif kind == "RandomCrop":
                undo.append(swap(layer, "transform_images", _crop(layer)))
            elif hasattr(layer, "unroll"):
                undo += unrolled(layer)
            if getattr(layer, "activity_regularizer", None) is not None:
                undo.append(swap(layer, "activity_regularizer", _of_real_examples(layer, batch.mask)))
            else:
                undo.append(swap(layer, "add_loss", _noting(layer, adding)))
        answer = device_draws(model, batch.seed, batch.step) if training else _no_draw(model, drawing)
        with answered_draws(_no_seed, answer):
            yield
        _refuse(drawing, "draws random numbers outside training, so no two answers of it would be alike")
        _refuse(
            adding, "adds a loss of its own, which would count the padding of short batches: use activity_regularizer"
        )
    finally:
        for put_back in reversed(undo):
            put_back()


def device_draws(model: Any, seed: Any, step: Any) -> Answer:
    """Returns what a model draws in one training step, besides dropout masks: the numbers of `draws.py`.

    Args:
        model: A Keras model.
        seed: Scalar ``int32`` tensor ≥ 0.
        step: Scalar ``int32`` tensor.
    """
    key = keys_of(seed, step)
    return numbered_draws(dropout_layers(model), lambda draw, numbers: drawn_tensor(draw, numbers, key()))


def _no_seed(dtype: str) -> Any:
    """Answers a ``SeedGenerator``, of whose seed nothing is made: what cannot be drawn is refused by `autodiff`."""
    import tensorflow as tf

    return tf.zeros([2], dtype)


def _no_draw(model: Any, drawing: list[str]) -> Answer:
    """Returns an answer for whoever draws, which writes down the layer that is being called."""
    import tensorflow as tf

    kinds = {layer.name: type(layer).__name__ for layer in flatten_layers(model, include_self=False)}

    def zeros(draw: Draw) -> Any:
        scope = [re.sub(r"_\d+$", "", p) if p not in kinds else p for p in tf.get_current_name_scope().split("/")]
        named = [f"layer '{part}' ({kinds[part]})" for part in scope if part in kinds]
        drawing.append(named[-1] if named else f"model '{model.name}'")
        return tf.zeros(draw.shape, draw.dtype)

    return zeros


def _noting(layer: Any, adding: list[str]) -> Callable[[Any], None]:
    def add_loss(loss: Any) -> None:
        adding.append(f"layer '{layer.name}' ({type(layer).__name__})")
        type(layer).add_loss(layer, loss)

    return add_loss


def _refuse(layers: list[str], reason: str) -> None:
    if layers:
        raise ExportError(f'{layers[0]} {reason}. In simulations, engine.name = "keras" trains it')


@contextlib.contextmanager
def keyed_dropout(model: Any, seed: Any, step: Any) -> Iterator[None]:
    """Lets a Keras model draw the device program's dropout masks inside the block.

    Args:
        model: A Keras model; layers are swapped only inside the block.
        seed: Scalar ``int32`` tensor: the program's ``seed`` input, ≥ 0.
        step: Scalar ``int32`` tensor: training steps since the weights were set.
    """
    undo = _swap_dropout(model, seed, step)
    try:
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def _swap_dropout(model: Any, seed: Any, step: Any) -> list[Callable[[], None]]:
    found, key = dropouts_of(model), keys_of(seed, step)
    layers = [swap(layer, "call", _dropout(layer, index, key)) for index, layer in enumerate(found)]
    return layers + swap_cells(model, len(found), lambda *mask: keep_tensor(key(), *mask))


def swap_cells(model: Any, first: int, keep: Keep) -> list[Callable[[], None]]:
    """Lets recurrent cells drop by ``keep``; returns what puts them back. Arguments as of `masks_of_cells`."""
    cells = masks_of_cells(model, first)
    return [swap(masks.cell, masks.method, masks.method_with(keep)) for masks in cells]


def _dropout(layer: Any, index: int, key: Callable[[], Any]) -> Callable[..., Any]:
    import tensorflow as tf

    def call(inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        shape = inputs.shape.as_list()
        if shape[0] is None:
            shape[0] = tf.shape(inputs)[0]
        spatial = type(layer).__name__.startswith("Spatial")
        noise = [shape[0], *[1] * (len(shape) - 2), shape[-1]] if spatial else _noise_shape(layer, shape)
        keep = keep_tensor(key(), index, noise, layer.rate)
        return inputs * (keep * (1.0 / (1.0 - layer.rate)))

    return call


def _noise_shape(layer: Any, shape: list[Any]) -> list[Any]:
    given = getattr(layer, "noise_shape", None)
    return shape if given is None else [s if n is None else n for s, n in zip(shape, given, strict=True)]


def _crop(layer: Any) -> Callable[..., Any]:
    """Returns RandomCrop's cut at a drawn corner with a result of known size; every other cut is Keras' own."""
    import tensorflow as tf

    def transform_images(images: Any, transformation: Any, training: bool = True) -> Any:
        top, left = transformation
        if not training or isinstance(top, int) or layer.data_format != "channels_last":
            return type(layer).transform_images(layer, images, transformation, training=training)
        rows = tf.gather(tf.cast(images, layer.compute_dtype), top + tf.range(layer.height), axis=-3)
        return tf.gather(rows, left + tf.range(layer.width), axis=-2)

    return transform_images


def _batch_norm(layer: Any, batch: Batch) -> Callable[..., Any]:
    import keras
    import tensorflow as tf

    def call(inputs: Any, training: bool = False, mask: Any = None) -> Any:
        if not training:
            return type(layer).call(layer, inputs, training=False)
        if mask is not None:  # time steps that do not count: Keras' own sums, over those of real examples
            real = tf.reshape(batch.mask, [-1, *[1] * (len(mask.shape) - 1)])
            return type(layer).call(layer, inputs, training=True, mask=tf.cast(mask, tf.float32) * real)
        channels = inputs.shape[-1]
        gamma = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones([channels])
        beta = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros([channels])
        out, mean, variance = DeviceBatchNorm()(inputs, gamma, beta, batch.mask, tf.constant(layer.epsilon))
        keep = layer.momentum
        for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(keras.ops.convert_to_tensor(moving) * keep + now * (1.0 - keep))
        return out

    return call


def _of_real_examples(layer: Any, mask: Any) -> Callable[[Any], Any]:
    """Returns the layer's activity regulariser, blind to padding rows: zeros cost nothing, which `check_layers` saw.

    Keras divides by all rows of the batch; what is returned makes that a division by the real ones.
    """
    import tensorflow as tf

    regularizer = layer.activity_regularizer

    def cost(output: Any) -> Any:
        total = regularizer(output * tf.reshape(mask, [-1, *[1] * (len(output.shape) - 1)]))
        return total * (float(output.shape[0]) / tf.maximum(tf.reduce_sum(mask), 1.0))

    return cost


def _counts_zeros(regularizer: Any) -> bool:
    """Returns whether rows of zeros change what a regulariser of activities says, as a mean over the batch would."""
    import keras

    rows = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    few, more = (
        float(keras.ops.convert_to_numpy(regularizer(keras.ops.convert_to_tensor(x))))
        for x in (rows, np.concatenate([rows, np.zeros_like(rows)]))
    )
    return abs(few - more) > 1e-5 * max(abs(few), abs(more), 1e-30)


def DeviceBatchNorm() -> Any:
    """Returns the marker function whose call `autodiff.replay` finds in the graph and runs by its rule.

    Its body states the meaning; the rule replaces it.
    """
    import tensorflow as tf

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def DeviceBatchNorm(x: Any, gamma: Any, beta: Any, mask: Any, epsilon: Any) -> Any:
        axes = list(range(len(x.shape) - 1))
        weights = tf.reshape(mask, [-1, *[1] * len(axes)]) * tf.ones_like(x[..., :1])
        mean, variance = tf.nn.weighted_moments(x, axes, weights)
        return (x - mean) * (tf.math.rsqrt(variance + epsilon) * gamma) + beta, mean, variance

    return DeviceBatchNorm
