"""Keras 3 models that train on devices as if they were small already: they see their int8 rounding, they keep zeros.

``with_fake_quant(build())`` and ``with_kept_zeros(build())`` train in any engine that trains ``build()``: same
variables, same paths, same order, so weights, updates and checkpoints are interchangeable and a run may switch for its
last rounds. Export the plain model.

*Fake quantisation.* Kernels round to 255 levels per output channel around zero, activations to 256 per tensor over the
range of the batch: the grid of the ``int8`` recipe. Batch normalisation after a convolution scales whole output
channels, so rounding before or after folding it is the same. Gradients pass rounding unchanged (straight-through;
Bengio et al. 2013, Jacob et al. 2018).

*Kept zeros.* A weight that is exactly zero gets no gradient, so it is zero after local training too: the mask of
``fl_mobile.wire.pruning_mask`` holds in every local step, and the other weights learn to do without. No mask is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.tuning.bridge import graph_of
from fl_mobile.models.private_api import called_after, run_graph, takes_training

_FOLDED_AFTER = ("BatchNormalization", "ReLU", "Activation", "Softmax")
"""Layers that TFLite folds into the operation before them: there is no rounding in between."""

_NO_ROUNDING = ("InputLayer", "Dropout", "SpatialDropout2D", "Flatten", "Reshape", "MaxPooling2D", "Softmax")
"""Layers whose output lies on the grid of their input, or is the model's last answer."""

_KERNEL_AXES = {"Dense": (0,), "Conv1D": (0, 1), "Conv2D": (0, 1, 2), "DepthwiseConv2D": (0, 1)}
"""Layer → axes of its kernel that share one scale; the others are output channels."""


def with_fake_quant(model: Any, *, keep_zeros: bool = False) -> Any:
    """Returns a Keras 3 model over the variables of ``model`` that rounds as its int8 artifact will.

    Args:
        model: A built Sequential or functional model. Layers outside ``_KERNEL_AXES`` keep float kernels.
        keep_zeros: Zero weights stay zero as well.

    Raises:
        ExportError: The model is subclassed or not built.
    """
    unrounded = {id(op) for op in graph_of(model).operations if _stays_float(op)}

    def kernel_rule(kernel: Any, axes: tuple[int, ...]) -> Any:
        return round_kernel(hold_zeros(kernel) if keep_zeros else kernel, axes)

    return _rewired(model, kernel_rule, lambda op, out: out if id(op) in unrounded else round_activations(out))


def with_kept_zeros(model: Any) -> Any:
    """Returns a Keras 3 model over the variables of ``model`` whose zero kernel weights stay zero while it trains.

    Not before the first mask: kernels that are zero from the start would never learn.

    Raises:
        ExportError: The model is subclassed or not built.
    """
    return _rewired(model, lambda kernel, axes: hold_zeros(kernel), lambda op, out: out)


def _rewired(model: Any, kernel_rule: Callable[..., Any], output_rule: Callable[..., Any]) -> Any:
    """Returns a model that walks the graph of ``model`` with other kernels and outputs, over the same variables."""
    import keras

    function = graph_of(model)

    def step(operation: Any, training: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if takes_training(operation) and training is not None:
                kwargs = {"training": training, **kwargs}
            axes = _KERNEL_AXES.get(type(operation).__name__)
            if axes is None:
                return output_rule(operation, operation(*args, **kwargs))
            return output_rule(operation, _with_kernel(operation, lambda kernel: kernel_rule(kernel, axes), *args))

        return run

    class Rewired(keras.Model):  # type: ignore[misc]
        """Holds the plain model, whose variables are its own."""

        def __init__(self) -> None:
            super().__init__(name=model.name)
            self.plain = model

        def call(self, frames: Any, training: Any = None) -> Any:
            return run_graph(function, [frames], lambda op: step(op, training))

    rewired = Rewired()
    rewired.build(tuple(function.inputs[0].shape))
    return rewired


def hold_zeros(kernel: Any) -> Any:
    """Returns ``kernel`` itself; its zeros get no gradient."""
    from keras import ops

    return kernel * ops.stop_gradient(ops.cast(ops.not_equal(kernel, 0.0), kernel.dtype))


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


def _with_kernel(layer: Any, rule: Callable[[Any], Any], *args: Any) -> Any:
    """Calls ``layer`` with ``rule(kernel)`` for its kernel; the variable itself stays and gets the gradient."""
    import keras

    values = [rule(v.value) if v.name == "kernel" else v.value for v in layer.variables]
    pairs = list(zip(layer.variables, values, strict=True))
    with keras.StatelessScope(state_mapping=pairs):
        return layer.call(*args)


def _stays_float(operation: Any) -> bool:
    """Returns whether the output of ``operation`` is not rounded by itself."""
    if type(operation).__name__ in _NO_ROUNDING:
        return True
    after = called_after(operation)
    return len(after) == 1 and type(after[0]).__name__ in _FOLDED_AFTER
