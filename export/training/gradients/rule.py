"""What a gradient rule is, and the few shape helpers every rule uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Node:
    """One operation of the user's graph with its tensors in the device program.

    Attributes:
        op: The traced ``tf.Operation``; holds attributes and static inputs.
        inputs: Tensors of the program that stand for ``op.inputs``.
        needs: For each input whether a gradient must be found for it.
        frozen: For each input whether it is a constant of the program (a frozen weight), not a variable.
        outputs: Tensors of the program that stand for ``op.outputs``; filled after ``forward``.
        saved: What ``forward`` leaves for ``backward``, e.g. the patches of a convolution.
    """

    op: Any
    inputs: tuple[Any, ...]
    needs: tuple[bool, ...] = ()
    frozen: tuple[bool, ...] = ()
    outputs: tuple[Any, ...] = ()
    saved: dict[str, Any] = field(default_factory=dict)

    def attr(self, name: str) -> Any:
        """Returns an attribute as Python value; strings decoded."""
        value = self.op.get_attr(name)
        return value.decode() if isinstance(value, bytes) else value

    def static(self, index: int) -> np.ndarray:
        """Returns an input whose value is known while tracing: axes, paddings, shapes.

        Raises:
            ValueError: It is not known; ``autodiff`` turns this into an `ExportError` with the layer's name.
        """
        import tensorflow as tf

        value = tf.get_static_value(self.op.inputs[index])
        if value is None:  # a shape that came through a call is known only in the program
            value = tf.get_static_value(self.inputs[index])
        if value is None:
            value = _computed(self.op.inputs[index])
        if value is None:
            raise ValueError(f"input {index} of {self.op.type} is computed at run time; the phone needs it fixed")
        return np.asarray(value)


def _computed(tensor: Any) -> np.ndarray | None:
    """Returns the value of a traced tensor that is arithmetic on constants alone, None if it is not."""
    import tensorflow as tf

    part = tf.compat.v1.graph_util.extract_sub_graph(tensor.graph.as_graph_def(), [tensor.op.name])
    if any(node.op in ("Placeholder", "ReadVariableOp") for node in part.node):
        return None
    with tf.init_scope():
        names = [tensor.name]
        run = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(part, return_elements=names), [])
        return np.asarray(run()[0])


Gradients = Sequence[Any]


@dataclass(frozen=True)
class Rule:
    """How one type of operation runs and is differentiated with builtin operations only.

    Attributes:
        backward: Node and gradients of its outputs (None for an output nobody used) → gradients of its inputs, None
            for an input that has none. It may skip inputs that ``node.needs`` marks False.
        forward: Node → its outputs, where the operation itself is not builtin or is slow. None keeps the operation.
    """

    backward: Callable[..., Gradients]
    forward: Callable[[Node], Sequence[Any]] | None = None


def shape_of(tensor: Any) -> list[int]:
    """Returns the static shape as a list.

    Raises:
        ValueError: A dimension is unknown.
    """
    shape = tensor.shape.as_list()
    if None in shape:
        raise ValueError(f"shape {shape} is not static; the phone's program needs fixed shapes")
    return shape


def unbroadcast(gradient: Any, tensor: Any) -> Any:
    """Sums a gradient over the axes along which ``tensor`` was broadcast, so that shapes agree again."""
    import tensorflow as tf

    have, want = shape_of(gradient), shape_of(tensor)
    if have == want:
        return gradient
    lead = len(have) - len(want)
    axes = [a for a in range(len(have)) if a < lead or (want[a - lead] == 1 and have[a] != 1)]
    if axes == list(range(len(have) - 1)):
        return tf.reshape(sum_rows(gradient), want)
    return tf.reshape(tf.reduce_sum(gradient, axes), want)


def sum_rows(tensor: Any) -> Any:
    """Returns ``float32[c]``: the sum over all axes but the last.

    In four dimensions, because XNNPACK's fast path sums the two middle ones; rank 2 takes three times as long.
    """
    import tensorflow as tf

    shape = shape_of(tensor)
    if len(shape) != 4:
        tensor = tf.reshape(tensor, [1, int(np.prod(shape[:-1])), 1, shape[-1]])
    return tf.reduce_sum(tensor, [0, 1, 2])


def positive(tensor: Any) -> Any:
    """Returns 1 where ``tensor`` > 0 and 0 where it is 0; ``tensor`` must not be negative.

    CEIL and MINIMUM stay inside XNNPACK's delegate; SIGN, or GREATER and CAST, would cut its graph in two.
    """
    import tensorflow as tf

    return tf.minimum(tf.math.ceil(tensor), 1.0)


def spread(gradient: Any, shape: Sequence[int]) -> Any:
    """Broadcasts a gradient to a full shape."""
    import tensorflow as tf

    return gradient if shape_of(gradient) == list(shape) else tf.broadcast_to(gradient, shape)
