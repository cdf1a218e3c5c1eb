"""The bridge to ``tf_keras``: every layer of its table crosses, everything else is refused by name, damage is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.tuning.bridge import LAYOUTS, make_twin, prove_equal, weights_of, with_weights
from fl_mobile.errors import ExportError
from tests.export.convert.topologies import Digits, inputs_for

pytestmark = pytest.mark.tf

_SEQUENCE = ("AveragePooling1D", "Conv1D", "GlobalAveragePooling1D", "MaxPooling1D")
_MERGES = ("Add", "Average", "Concatenate", "Maximum", "Multiply", "Subtract")
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "tanh"},
    "AveragePooling1D": {"pool_size": 2, "padding": "same"},
    "AveragePooling2D": {"pool_size": 2, "strides": 1},
    "BatchNormalization": {"epsilon": 0.02, "momentum": 0.5},
    "Concatenate": {"axis": 2},
    "Conv1D": {"filters": 5, "kernel_size": 3, "dilation_rate": 2, "activation": "relu"},
    "Conv2D": {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same", "groups": 2, "activation": "elu"},
    "Dense": {"units": 7, "use_bias": False},
    "DepthwiseConv2D": {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"},
    "Dropout": {"rate": 0.3},
    "GlobalAveragePooling2D": {"keepdims": True},
    "MaxPooling1D": {"pool_size": 2},
    "MaxPooling2D": {"pool_size": (2, 1)},
    "ReLU": {"max_value": 0.6, "negative_slope": 0.1, "threshold": 0.2},
    "Rescaling": {"scale": 1 / 127.5, "offset": -1.0},
    "Reshape": {"target_shape": (6, 8, 4)},
    "Softmax": {"axis": -2},
    "SpatialDropout2D": {"rate": 0.2},
    "ZeroPadding2D": {"padding": ((0, 1), (2, 3))},
}


def model_around(kind: str) -> tuple[Any, np.ndarray]:
    """Returns a functional model whose middle is one layer of ``kind``, with random weights, and frames for it."""
    import keras

    layers, rng = keras.layers, np.random.default_rng(1)
    shape = (8, 4) if kind in _SEQUENCE else (8, 6, 4)
    frame = keras.Input(shape, name="frame")
    middle = getattr(layers, kind)(name="middle", **_ARGUMENTS.get(kind, {}))
    scaled = layers.Rescaling(0.5, name="scale")(frame)
    x = middle([frame, scaled]) if kind in _MERGES else middle(frame)
    model = keras.Model(frame, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)), name="around")
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape))
    return model, rng.standard_normal((16, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layer_of_the_table_crosses(kind: str) -> None:
    model, frames = model_around(kind)
    twin = make_twin(model, frames)
    assert list(twin.places) == [weight.path for weight in model.weights]
    back = weights_of(twin, twin.model)
    for weight in model.weights:
        np.testing.assert_array_equal(back[weight.path], weight.numpy())


@pytest.mark.parametrize("topology", ["sequential-logits", "functional-batchnorm", "features-mlp"])
def test_trained_models_cross_and_come_back(topology: str, model_of: Any, data: Digits) -> None:
    model, x = model_of(topology), inputs_for(topology, data.x_test)
    before = [weight.numpy().copy() for weight in model.weights]
    twin = make_twin(model, x)
    copy = with_weights(model, weights_of(twin, twin.model))
    assert [w.path for w in copy.weights] == [w.path for w in model.weights]
    np.testing.assert_array_equal(np.asarray(copy(x[:40])), np.asarray(model(x[:40])))
    twin.model.layers[-1].set_weights([np.zeros_like(w) for w in twin.model.layers[-1].get_weights()])
    zeroed = with_weights(model, weights_of(twin, twin.model))
    assert not np.asarray(zeroed.layers[-1].kernel).any()
    assert all(np.array_equal(now.numpy(), then) for now, then in zip(model.weights, before, strict=True)), (
        "model untouched"
    )


def test_it_catches_swapped_weights(data: Digits) -> None:
    """Two layers of one shape whose weights change places: nothing but answers can tell."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Flatten(name="flat"),
            layers.Dense(64, activation="tanh", name="first"),
            layers.Dense(64, activation="relu", name="second"),
            layers.Dense(10, name="head"),
        ]
    )
    frames = data.x_test[:16] / np.float32(255)
    double = make_twin(model, frames).model
    first, second = double.get_layer("first"), double.get_layer("second")
    values = first.get_weights(), second.get_weights()
    first.set_weights(values[1])
    second.set_weights(values[0])
    with pytest.raises(ExportError, match=r"and its tf_keras twin differ by"):
        prove_equal(model, double, frames)


def _with(middle: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        import keras

        frame = keras.Input((8, 8, 4), name="frame")
        x = middle(keras, frame)
        return keras.Model(frame, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="refused")

    return build


def _subclassed() -> Any:
    import keras

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.head = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(x[:, 0, 0])

    model = Own()
    model(np.zeros((1, 8, 8, 4), np.float32))
    return model


def _shared(keras: Any, x: Any) -> Any:
    conv = keras.layers.Conv2D(4, 3, padding="same", name="twice")
    return conv(conv(x))


def _own_layer(keras: Any, x: Any) -> Any:
    class Dense(keras.layers.Dense):
        pass

    return Dense(4, name="disguised")(x)


def _square(x: Any) -> Any:
    return x * x


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "subclassed": (_subclassed, r"'own' is subclassed \(Own\)"),
    "lambda": (_with(lambda k, x: k.layers.Lambda(lambda t: t * 2, name="twofold")(x)), r"'twofold' \(Lambda\)"),
    "unknown layer": (_with(lambda k, x: k.layers.GaussianNoise(0.1, name="noise")(x)), r"'noise' \(GaussianNoise\)"),
    "split by TFMOT": (_with(lambda k, x: k.layers.SeparableConv2D(4, 3, name="sep")(x)), r"'sep' \(SeparableConv2D\)"),
    "own layer of a known name": (_with(_own_layer), r"'disguised' \(Dense\)"),
    "shared layer": (_with(_shared), r"'twice' is shared"),
    "operation between layers": (_with(lambda k, x: k.ops.sin(x)), r"keras\.ops\.Sin"),
    "nested model": (
        _with(lambda k, x: k.Sequential([k.Input((8, 8, 4)), k.layers.ReLU()], name="inner")(x)),
        r"'inner' is a model inside the model",
    ),
    "own activation": (
        _with(lambda k, x: k.layers.Dense(4, activation=_square, name="square")(x)),
        r"'square' \(Dense\).*user's own function",
    ),
    "half precision": (
        _with(lambda k, x: k.layers.Dense(4, dtype="mixed_float16", name="half")(x)),
        r"'half' computes in mixed_float16",
    ),
    "key without counterpart": (
        _with(lambda k, x: k.layers.Dropout(0.1, noise_shape=(None, 1, 1, 4), name="blocks")(x)),
        r"'blocks' \(Dropout\): tf_keras has no noise_shape",
    ),
}


@pytest.mark.parametrize(("build", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_bridged_is_refused_by_name(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(ExportError, match=says):
        make_twin(build(), np.zeros((2, 8, 8, 4), np.float32))


def test_weights_of_another_model_are_refused(model_of: Any, data: Digits) -> None:
    model, other = model_of("sequential-logits"), model_of("functional-batchnorm")
    twin = make_twin(other, data.x_test[:4])
    with pytest.raises(ExportError, match="are not its own"):
        with_weights(model, weights_of(twin, twin.model))


def test_process_stays_on_keras_3() -> None:
    """TFMOT sets TF_USE_LEGACY_KERAS when imported; neither this process nor its children may see it."""
    script = (
        "import os\n"
        "from export.tuning.bridge import tf_keras_and_tfmot\n"
        "tf_keras_and_tfmot()\n"
        "import tensorflow as tf, keras\n"
        "print(os.environ.get('TF_USE_LEGACY_KERAS'), tf.keras.__version__ == keras.__version__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["None", "True"]
