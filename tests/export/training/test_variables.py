"""Whatever a program keeps, XNNPACK takes it into its graphs, so that no memory moves while the program runs."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export.training.convert import convert_module
from export.training.program import build_training_program
from fl_mobile.local import OPTIMIZERS
from tests.export.training.test_catches import File

pytestmark = pytest.mark.tf
L = keras.layers


def outside(tflite: bytes) -> list[str]:
    """Returns variables that are read and that XNNPACK leaves alone: not float32, scalars, of more than six axes."""
    file = File(tflite)
    names = [signature.signatureKey.decode() for signature in file.model.signatureDefs]
    reads = [file.graph(name).tensors[op.outputs[0]] for name in names for op in file.ops(name, "READ_VARIABLE")]
    assert reads
    fits = [t.type == schema.TensorType.FLOAT32 and 1 <= len(t.shape) <= 6 for t in reads]
    return [t.name.decode() for t, fine in zip(reads, fits, strict=True) if not fine]


class Scaled(L.Layer):
    """Weights without an axis, one of them frozen."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")
        self.offset = self.add_weight(shape=(), name="offset", initializer="ones", trainable=False)

    def call(self, x: Any) -> Any:
        return x * self.scale + self.offset


@pytest.mark.sample(r"adam")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_counters_slots_and_weights_without_axes_stay_inside(optimizer: str) -> None:
    """One that does not is a tensor of unknown size: LiteRT 2.3 then moves memory under XNNPACK in the first step."""
    keras.utils.set_random_seed(3)
    layers = [L.Dense(4, "relu"), Scaled(), L.Dropout(0.3), L.BatchNormalization(), L.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    options: dict[str, Any] = {"proximal": True, "correction": True, "accumulate": True, "clip_norm": 0.5}
    made = build_training_program(model, batch_size=4, optimizer=optimizer, **options)
    assert outside(made.tflite) == []
    assert [w.path.rpartition("/")[2] for w in made.contract.weights if not w.shape] == ["scale", "offset"]


@pytest.mark.parametrize("value", [0, 0.0])
def test_an_integer_or_a_scalar_outside_is_seen(value: float) -> None:
    module = tf.Module()
    module.count = tf.Variable(value, trainable=False)

    def read(x: Any) -> dict[str, Any]:
        module.count.assign_add(tf.ones_like(module.count))
        return {"y": x + tf.cast(module.count.read_value(), tf.float32)}

    function = tf.function(read).get_concrete_function(tf.TensorSpec((2,), name="x"))
    assert outside(convert_module(module, {"f": function}, "counts"))
