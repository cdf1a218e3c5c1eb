"""The layers of mobile keyboards: an LSTM whose gates are coupled and whose output is projected, a shared embedding.

Imported where a model is built or read: it imports Keras.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_PACKAGE = "fl_mobile"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class CifgCell(keras.layers.Layer):  # type: ignore[misc]
    """A step of an LSTM with coupled input and forget gates (Greff et al. 2017) and a projection (Sak et al. 2014).

    ``[f, o, g] = [σ, σ, tanh](x·K + r·R + b)``, ``c ← f·c + (1 − f)·g``, ``r ← (o·tanh c)·P``: the state is r
    ``[n, width]``, which is the output too, and c ``[n, units]``. Forgetting begins with a bias of 1.
    """

    def __init__(self, units: int, width: int, **layer: Any) -> None:
        super().__init__(**layer)
        self.units, self.width = units, width
        self.state_size, self.output_size = [width, units], width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights."""
        units, width = self.units, self.width
        self.kernel = self.add_weight(shape=(input_shape[-1], 3 * units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(width, 3 * units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.projection = self.add_weight(shape=(units, width), name="projection_kernel")
        self.bias = self.add_weight(shape=(3 * units,), initializer=_forget_later, name="bias")

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """Returns the output and the new state."""
        told, cell = states
        gates = ops.add(ops.add(ops.matmul(inputs, self.kernel), ops.matmul(told, self.recurrent_kernel)), self.bias)
        keep, out, new = ops.split(gates, 3, axis=-1)
        keep = ops.sigmoid(keep)
        cell = ops.add(ops.multiply(keep, cell), ops.multiply(ops.subtract(1.0, keep), ops.tanh(new)))
        told = ops.matmul(ops.multiply(ops.sigmoid(out), ops.tanh(cell)), self.projection)
        return told, [told, cell]

    def get_config(self) -> dict[str, Any]:
        """Returns what it is made with."""
        return {**super().get_config(), "units": self.units, "width": self.width}


@keras.saving.register_keras_serializable(package=_PACKAGE)  # type: ignore[untyped-decorator]
def _forget_later(shape: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
    third = shape[0] // 3
    return ops.concatenate([ops.ones((third,), dtype), ops.zeros((2 * third,), dtype)])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class SharedEmbedding(keras.layers.Embedding):  # type: ignore[misc]
    """An embedding that also tells tokens apart: with ``reverse`` a score for each token, by the same vectors."""

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Returns vectors ``[…, width]`` of tokens ``[…]``, or scores ``[…, tokens]`` of vectors."""
        return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...], reverse: bool = False) -> tuple[Any, ...]:
        """Returns the shape of `call`'s answer."""
        return (*input_shape[:-1], self.input_dim) if reverse else (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs: Any, reverse: bool = False) -> Any:
        """Returns shape and type of `call`'s answer."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, reverse), dtype=self.compute_dtype)
