"""Gradients of one model twice: by the converted program on LiteRT and by TensorFlow's own tape."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from export.training.autodiff import Tape, cells_for, replay
from export.training.convert import convert_module
from export.training.layers import Batch, check_layers, traced_for_training
from fl_mobile.models import keras_bridge


def cotangent(model: Any, batch: int) -> np.ndarray:
    """Returns fixed random numbers that the outputs are multiplied with to make a loss."""
    shape = (batch, *model.outputs[0].shape[1:])
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@contextlib.contextmanager
def _any_strides() -> Iterator[None]:
    """Gives depthwise convolutions unequal strides, which their CPU kernel lacks: every place first, then some."""
    original = tf.nn.depthwise_conv2d

    def depthwise(x: Any, kernel: Any, strides: Any, padding: str, **named: Any) -> Any:
        steps = tuple(strides[1:3])
        if steps[0] == steps[1]:
            return original(x, kernel, strides, padding, **named)
        if padding == "SAME":
            wanted = [max(k - (n % s or s), 0) for n, k, s in zip(x.shape[1:3], kernel.shape[:2], steps, strict=True)]
            x = tf.pad(x, [(0, 0), *((w // 2, w - w // 2) for w in wanted), (0, 0)])
        return original(x, kernel, [1, 1, 1, 1], "VALID", **named)[:, :: steps[0], :: steps[1]]

    def separable(x: Any, kernel: Any, mix: Any, strides: Any, padding: str, **named: Any) -> Any:
        return tf.nn.conv2d(depthwise(x, kernel, strides, padding, **named), mix, 1, "VALID")

    with (
        mock.patch.object(tf.nn, "depthwise_conv2d", depthwise),
        mock.patch.object(tf.nn, "separable_conv2d", separable),
    ):
        yield


def by_tensorflow(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the gradient of every trainable variable by path, from an eager tape."""
    with _any_strides(), tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) * cotangent(model, len(x)))
    values = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return {v.path: np.asarray(tf.convert_to_tensor(g)) for v, g in zip(model.trainable_variables, values, strict=True)}


def convert_gradients(model: Any, batch: int) -> bytes:
    """Returns a program whose ``gradients`` signature takes x and every weight and gives every gradient."""
    check_layers(model)
    travelling = keras_bridge.travelling_variables(model)
    shape = [batch, *model.inputs[0].shape[1:]]
    weights = cotangent(model, batch)

    @tf.function(autograph=False)
    def forward(x: Any) -> Any:
        mask, zero = tf.ones([batch]), tf.constant(0)
        with traced_for_training(model, Batch(mask, zero, zero), training=True):
            return tf.reduce_sum(model(x, training=True) * weights)

    graph = forward.get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph

    def gradients(x: Any, **values: Any) -> dict[str, Any]:
        tape, listed = Tape(), [values[f"w{i:03d}"] for i in range(len(travelling))]
        sources = [t for t, v in zip(listed, travelling, strict=True) if v.trainable]
        for source in sources:
            tape.watch(source)
        cells, captured = cells_for(graph, model, travelling, listed, tape)
        (loss,) = replay(graph, [x, *captured], cells, tape)
        return {f"g{i:03d}": g for i, g in enumerate(tape.gradients(loss, sources))} | {"loss": tf.reshape(loss, [1])}

    specs = {"x": tf.TensorSpec(shape, tf.float32, "x")}
    for i, v in enumerate(travelling):
        specs[f"w{i:03d}"] = tf.TensorSpec(v.shape, tf.float32, f"w{i:03d}")
    traced = tf.function(gradients, autograph=False).get_concrete_function(**specs)
    return convert_module(tf.Module(), {"gradients": traced}, model.name)


def on_device(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the gradient of every trainable variable by path, from the converted program on LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    program = Interpreter(model_content=convert_gradients(model, len(x)), num_threads=1)
    program.allocate_tensors()
    run = program.get_signature_runner("gradients")
    travelling = keras_bridge.read(model)
    feeds = {"x": x} | {f"w{i:03d}": value for i, value in enumerate(travelling.values())}
    wanted = run.get_input_details()
    out = run(**{k: v for k, v in feeds.items() if k in wanted})
    return {v.path: out[f"g{i:03d}"].reshape(v.shape) for i, v in enumerate(model.trainable_variables)}


def worst_relative_error(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """Returns the largest error of any tensor, relative to the largest true value of that tensor.

    A tensor whose true gradient is zero (a bias in front of a BatchNormalization) is judged by the model's scale.
    """
    scale = max(float(np.abs(v).max()) for v in want.values()) or 1.0  # all zero: dead relus
    assert got.keys() == want.keys()
    return max(float(np.abs(got[k] - want[k]).max() / max(np.abs(want[k]).max(), 1e-2 * scale)) for k in want)
