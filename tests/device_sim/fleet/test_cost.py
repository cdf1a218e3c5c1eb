"""Multiply-accumulates counted from Keras layers against those counted from the converted model."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from device_sim.fleet.devices.cost import workload_of
from export.benchmark.macs import count_macs
from export.model.recurrent import loops_unrolled
from fl_mobile.errors import ModelError
from fl_mobile.models import MODELS
from tests.device_sim.small_models import SHAPE, subclassed
from tests.fl_mobile.models.model_builds import build

pytestmark = pytest.mark.tf

LARGE = ("mobilenet-v2-head", "mobilenet-v2-0.35", "mobilenet-v1-0.25")


def converted_macs(model) -> int | None:
    import tensorflow as tf

    spec = tf.TensorSpec((1, *model.input_shape[1:]), model.inputs[0].dtype)
    with loops_unrolled(model):  # a loop's body would count once
        traced = tf.function(lambda x: model(x)).get_concrete_function(spec)
        return count_macs(tf.lite.TFLiteConverter.from_concrete_functions([traced], model).convert())


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in MODELS])
def test_every_model_costs_what_its_converted_graph_multiplies(name):
    model = build(name)
    work = workload_of(model, model.input_shape[1:], optimizer_slots=1)
    assert work.forward_macs == converted_macs(model)
    assert work.parameters == model.count_params()
    assert work.optimizer_slots == 1


def test_layers_that_no_model_of_ours_has():
    from keras import Sequential, layers

    model = Sequential(
        [
            layers.Input((8, 8, 4)),
            layers.Conv2DTranspose(3, 2, strides=2),
            layers.SeparableConv2D(6, 3, padding="same"),
            layers.Conv2D(8, 1, groups=2),
            layers.Reshape((32, 64)),
            layers.GRU(5),
            layers.Dense(2),
        ]
    )
    transposed, separable, grouped = 8 * 8 * 2 * 2 * 4 * 3, 16 * 16 * (9 * 3 + 3 * 6), 16 * 16 * 3 * 8
    recurrent, dense = 32 * (64 * 15 + 5 * 15), 5 * 2
    work = workload_of(model, model.input_shape[1:])
    assert work.forward_macs == transposed + separable + grouped + recurrent + dense
    assert work.activations == 16 * 16 * (3 + 6 + 8) + 32 * 64 + 5 + 2


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"])
def test_attention_costs_what_its_converted_graph_multiplies(kind):
    import keras
    from keras import layers

    made = {
        "MultiHeadAttention": lambda x, y: layers.MultiHeadAttention(3, 4, value_dim=5)(x, y),
        "GroupedQueryAttention": lambda x, y: layers.GroupQueryAttention(4, 6, 2)(x, y),
        "Attention": lambda x, y: layers.Attention()([x, y]),
        "AdditiveAttention": lambda x, y: layers.AdditiveAttention()([x, y]),
    }
    x = keras.Input((7, 8))
    model = keras.Model(x, layers.Dense(2)(made[kind](x, x)))
    assert workload_of(model, (7, 8)).forward_macs == converted_macs(model)


def test_layers_that_take_a_mask_or_give_a_state_are_counted():
    import keras
    from keras import layers

    def net(*, mask: bool) -> keras.Model:
        x = keras.Input((7,))
        words = layers.Embedding(20, 4, mask_zero=mask)(x)
        out, h, _ = layers.LSTM(5, return_state=True)(words)
        return keras.Model(x, layers.Dense(2)(layers.Concatenate()([out, h])))

    masked, plain = (workload_of(net(mask=mask), (7,)) for mask in (True, False))
    assert masked.forward_macs == plain.forward_macs == 7 * (4 * 20 + 5 * 20) + 10 * 2
    sequence = keras.Sequential([layers.Input((6, 3)), layers.Masking(), layers.LSTM(5), layers.Dense(2)])
    assert workload_of(sequence, (6, 3)).forward_macs == 6 * (3 * 20 + 5 * 20) + 5 * 2


def test_a_layer_that_is_used_twice_does_not_stop_the_count():
    import keras
    from keras import layers

    a, b, shared = keras.Input((4,)), keras.Input((4,)), layers.Dense(3)
    model = keras.Model([a, b], layers.Dense(2)(layers.Add()([shared(a), shared(b)])))
    assert workload_of(model, (4,)).forward_macs >= 4 * 3 + 3 * 2


def test_frozen_layers_are_only_run_forward():
    from keras import Sequential, layers

    base = Sequential([layers.Input((20,)), layers.Dense(100), layers.Dense(50)])
    model = Sequential([layers.Input((20,)), base, layers.Dense(3)])
    base.trainable = False
    work = workload_of(model, model.input_shape[1:])
    assert (work.forward_macs, work.frozen_macs) == (7150, 7000)
    assert work.flops(np.array([10]), 2).tolist() == [2 * (7000 + 3 * 150) * 20]
    base.trainable = True
    assert workload_of(model, model.input_shape[1:]).frozen_macs == 0


def test_a_model_without_a_size_is_named():
    from keras import Sequential, layers

    with pytest.raises(ModelError, match="depends on the input"):
        workload_of(Sequential([layers.Input((None, None, 1)), layers.Conv2D(2, 3)]), (None, None, 1))


def test_a_subclassed_model_is_counted_by_its_layers() -> None:
    model = subclassed()
    kernels = [v for v in model.trainable_variables if v.path.endswith("kernel")]
    assert workload_of(model, SHAPE).forward_macs == sum(prod(v.shape) for v in kernels)  # dense layers only
