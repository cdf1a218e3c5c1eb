"""Pictures out of one update: what whoever sees a single client's packet can recover of its batch.

Two ways. A dense layer that sees the picture gives it away in closed form: a unit's weight gradient is a sum of inputs
times that unit's error, its bias gradient the sum of errors, so for a unit that one picture of the batch moves, one
divided by the other *is* that picture (Phong et al., "Privacy-preserving deep learning via additively homomorphic
encryption", IEEE TIFS 2018). Behind convolutions a picture is searched whose gradient points where the update did
(Geiping et al., "Inverting gradients", NeurIPS 2020): cosine distance plus total variation, by Adam on signs.

How good a recovery is, is told against the original, which the attacker does not have; in dB of PSNR, and beside it
what the mean picture of the data would have reached without looking at any update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fl_mobile.models import keras_bridge
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.tensors import Tensors

STEPS = 400
_RATE, _VARIATION = 0.05, 2e-3
_PIXELWISE = ("InputLayer", "Rescaling", "Flatten")
"""Layers that leave it to the next one to see the picture, as it is or scaled."""


@dataclass(frozen=True)
class Recovery:
    """What was recovered of a batch.

    Attributes:
        method: ``analytic`` or ``optimisation``.
        pictures: ``float32[n, …]`` in [0, 1], the best one found for each original.
        psnr: ``float64[n]`` dB against the originals; larger is more like them.
    """

    method: str
    pictures: np.ndarray
    psnr: np.ndarray


def recover(
    model: Any,
    weights: Tensors,
    gradient: Tensors,
    truth: np.ndarray,
    *,
    loss: Callable[[Any, Any], Any],
    classes: int,
    brightest: float,
) -> Recovery:
    """Returns what of a batch can be seen in its gradient.

    Args:
        model: Keras, built; its weights are changed.
        weights: Travelling tensors that the client trained from.
        gradient: Of the mean loss, as far as the update shows it.
        truth: ``float32[n, …]`` in [0, 1]: to choose and judge what was found by, and for the shape.
        loss: (labels, outputs) → a loss for every example.
        classes: Of the labels.
        brightest: What the model takes for 1.
    """
    kernel = seen_by_dense(model)
    if kernel is not None:
        candidates = by_division(gradient, *kernel, shape=truth.shape[1:])
        method = "analytic"
    else:
        labels = labels_in(gradient, len(truth), classes)
        look = partial(by_search, model, weights, gradient, labels, shape=truth.shape[1:])
        candidates = look(loss=loss, brightest=brightest)
        method = "optimisation"
    quality = np.array([[psnr(one, other) for other in candidates] for one in truth])
    found = candidates[quality.argmax(axis=1)]
    return Recovery(method, found, quality.max(axis=1))


def psnr(picture: np.ndarray, other: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two pictures in [0, 1], in dB; 100 of equal ones."""
    error = float(np.mean(np.square(picture.astype(np.float64) - other)))
    return min(100.0, -10 * np.log10(error)) if error else 100.0


def seen_by_dense(model: Any) -> tuple[str, str] | None:
    """Returns the paths of kernel and bias of a dense layer that sees the picture itself; None if none does."""
    for layer in flatten_layers(model):
        kind = type(layer).__name__
        if kind == "Dense":
            return (layer.kernel.path, layer.bias.path) if layer.use_bias else None
        if kind not in (*_PIXELWISE, "Functional", "Sequential"):
            return None
    return None


def by_division(gradient: Tensors, kernel: str, bias: str, *, shape: tuple[int, ...]) -> np.ndarray:
    """Returns ``float32[units, …]``: for every unit that the batch moved, its weight gradient over its bias gradient.

    The scale of a rescaling layer is undone by stretching each to [0, 1], where pictures are.
    """
    rows, errors = gradient[kernel].T.astype(np.float64), gradient[bias].astype(np.float64)
    moved = np.abs(errors) > 1e-3 * np.abs(errors).max(initial=1e-30)
    pictures = rows[moved] / errors[moved][:, None]
    low, high = pictures.min(axis=1, keepdims=True), pictures.max(axis=1, keepdims=True)
    stretched = (pictures - np.minimum(low, 0)) / np.maximum(high - np.minimum(low, 0), 1e-30)
    return stretched.reshape(-1, *shape).astype(np.float32)


def labels_in(gradient: Tensors, count: int, classes: int) -> np.ndarray:
    """Returns ``int64[count]``: the classes that the last layer's bias says the batch was of, the surest first.

    Under cross-entropy an output's bias gradient is mean(probability) − share of the class, so it is below 0 where
    the class was there (Zhao et al., "iDLG", arXiv 2001.02610).
    """
    biases = [value for value in gradient.values() if value.shape == (classes,)]
    if not biases:
        return np.zeros(count, np.int64)
    order = np.argsort(biases[-1], kind="stable")
    return np.resize(order[: max(1, min(count, int((biases[-1] < 0).sum())))], count).astype(np.int64)


def by_search(
    model: Any,
    weights: Tensors,
    gradient: Tensors,
    labels: np.ndarray,
    *,
    shape: tuple[int, ...],
    loss: Callable[[Any, Any], Any],
    brightest: float,
    steps: int = STEPS,
) -> np.ndarray:
    """Returns ``float32[n, …]`` in [0, 1] whose gradient points where ``gradient`` does."""
    import tensorflow as tf

    keras_bridge.write(model, weights)
    wanted = [tf.constant(gradient[v.path]) for v in model.trainable_variables]
    length = tf.linalg.global_norm(wanted)
    x = tf.Variable(tf.fill((len(labels), *shape), 0.5))
    y = tf.constant(labels)
    adam_m, adam_v = tf.Variable(tf.zeros_like(x)), tf.Variable(tf.zeros_like(x))

    @tf.function  # type: ignore[untyped-decorator]
    def move(step: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                value = tf.reduce_mean(loss(y, model(brightest * x, training=False)))
            found = inner.gradient(value, [v.value for v in model.trainable_variables])
            dot = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(found, wanted, strict=True)])
            away = 1 - dot / (tf.linalg.global_norm(found) * length + 1e-12)
            rough = tf.reduce_mean(tf.abs(x[:, 1:] - x[:, :-1])) + tf.reduce_mean(tf.abs(x[:, :, 1:] - x[:, :, :-1]))
            total = away + _VARIATION * rough
        slope = tf.sign(outer.gradient(total, x))
        adam_m.assign(0.9 * adam_m + 0.1 * slope)
        adam_v.assign(0.999 * adam_v + 0.001 * tf.square(slope))
        rate = _RATE * tf.where(step < 0.6 * steps, 1.0, tf.where(step < 0.85 * steps, 0.1, 0.02))
        corrected = (adam_m / (1 - 0.9**step)) / (tf.sqrt(adam_v / (1 - 0.999**step)) + 1e-8)
        x.assign(tf.clip_by_value(x - rate * corrected, 0.0, 1.0))
        return away

    for step in range(1, steps + 1):
        move(tf.constant(float(step)))
    found: np.ndarray = x.numpy()
    return found
