"""A Keras 3 model that sees its own int8 rounding, for quantisation-aware training on devices.

``with_fake_quant(build())`` trains in any engine that trains ``build()``: same variables, same paths, same order, so
weights, updates and checkpoints are interchangeable and a run may switch for its last rounds. Export the plain model.

Kernels round to 255 levels per output channel around zero, activations to 256 per tensor over the range of the batch:
the grid of the ``int8`` recipe. Batch normalisation after a convolution scales whole output channels, so rounding
before or after folding it is the same. Gradients pass rounding unchanged (straight-through; Bengio et al. 2013,
Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.tuning.bridge import graph_of

_FOLDED_AFTER = ("BatchNormalization", "ReLU", "Activation", "Softmax")
"""Layers that TFLite folds into the operation before them: there is no rounding in between."""

_NO_ROUNDING = ("InputLayer", "Dropout", "SpatialDropout2D", "Flatten", "Reshape", "MaxPooling2D", "Softmax")
"""Layers whose output lies on the grid of their input, or is the model's last answer."""

_KERNEL_AXES = {"Dense": (0,), "Conv1D": (0, 1), "Conv2D": (0, 1, 2), "DepthwiseConv2D": (0, 1)}
"""Layer → axes of its kernel that share one scale; the others are output channels."""


def with_fake_quant(model: Any) -> Any:
    """Returns a Keras 3 model over the variables of ``model`` that rounds as its int8 artifact will.

    Args:
        model: A built Sequential or functional model. Layers outside ``_KERNEL_AXES`` keep float kernels.

    Raises:
        ExportError: The model is subclassed or not built.
    """
    import keras

    function = graph_of(model)
    unrounded = {id(op) for op in function.operations if _stays_float(op)}

    def step(operation: Any, training: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if getattr(operation, "_call_has_training_arg", False) and training is not None:
                kwargs = {"training": training, **kwargs}
            axes = _KERNEL_AXES.get(type(operation).__name__)
            out = operation(*args, **kwargs) if axes is None else _run_rounded(operation, axes, *args)
            return out if id(operation) in unrounded else round_activations(out)

        return run

    class FakeQuantized(keras.Model):
        """Walks the graph of the plain model with rounding in between."""

        def __init__(self) -> None:
            super().__init__(name=model.name)
            self.plain = model

        def call(self, frames: Any, training: Any = None) -> Any:
            return function._run_through_graph([frames], operation_fn=lambda op: step(op, training))

    rounded = FakeQuantized()
    rounded.build(tuple(function.inputs[0].shape))
    return rounded


def round_kernel(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Returns ``kernel`` on its int8 grid, one scale for all values along ``axes``; the gradient is the identity."""
    from keras import ops

    scale = ops.maximum(ops.max(ops.abs(kernel), axis=axes, keepdims=True), 1e-12) / 127.0
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


def round_activations(x: Any) -> Any:
    """Returns ``x`` on the 256 levels between its least and largest value, zero being one of them."""
    from keras import ops

    low, high = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
    scale = ops.maximum(high - low, 1e-12) / 255.0
    zero = ops.round(-low / scale)
    levels = ops.clip(ops.round(x / scale) + zero, 0.0, 255.0)
    return x + ops.stop_gradient((levels - zero) * scale - x)


def _run_rounded(layer: Any, axes: tuple[int, ...], *args: Any) -> Any:
    """Calls ``layer`` with its kernel rounded; the variable itself keeps full precision and gets the gradient."""
    import keras

    values = [round_kernel(v.value, axes) if v.name == "kernel" else v.value for v in layer.variables]
    pairs = list(zip(layer.variables, values, strict=True))
    with keras.StatelessScope(state_mapping=pairs):
        return layer.call(*args)


def _stays_float(operation: Any) -> bool:
    """Returns whether the output of ``operation`` is not rounded by itself."""
    if type(operation).__name__ in _NO_ROUNDING:
        return True
    after = [node.operation for node in operation._outbound_nodes]
    return len(after) == 1 and type(after[0]).__name__ in _FOLDED_AFTER
