"""The variables of a training program: float32 of one axis or more, which is what XNNPACK takes into its graphs.

It leaves integers and scalars outside. What is outside has no known size until it is read, so that LiteRT moves the
program's memory while it runs the first time. XNNPACK (in LiteRT 2.3) then leaves out for good what copies a tensor
(RESHAPE, READ_VARIABLE) if the source has come to lie where the result was before: every later step is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def make_variable(shape: Sequence[int], name: str | None = None) -> Any:
    """Returns a ``tf.Variable`` of zeros, or of a scalar what is read and assigned (from ``[]`` or ``[1]``) like one.

    Zeros instead of weights: the file holds no values, the phone gets them by ``set_weights``.
    """
    import tensorflow as tf

    if len(shape):
        return tf.Variable(tf.zeros(shape), name=name)

    class Scalar(tf.Module):  # type: ignore[misc]
        shape = tf.TensorShape([])

        def __init__(self) -> None:
            super().__init__()
            self.held = tf.Variable(tf.zeros([1]), name=name)

        def read_value(self) -> Any:
            return tf.reshape(self.held.read_value(), [])

        def assign(self, value: Any) -> Any:
            return self.held.assign(tf.reshape(value, [1]))

    return Scalar()


def counter() -> Any:
    """Returns a scalar that counts; exact to 2²⁴."""
    return make_variable(())
