"""One canary for each private function of Keras, TensorFlow and TFMOT that is used, and none is used elsewhere."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_mobile.models import private_api

pytestmark = pytest.mark.tf

ROOT = Path(__file__).parents[3]
SOURCES = sorted(p for package in ("fl_mobile", "device_sim", "export") for p in (ROOT / package).rglob("*.py"))
OF_OTHERS = re.compile(r"^\s*(from|import) (keras\.src|tensorflow\.python|tensorflow_model_optimization\.python)", re.M)
# `_tab` is the flatbuffers package's table inside each accessor that its compiler generates; `_exit` is Python's own.
NOT_MEANT = {"_tab", "_exit"}


def private_attributes(source: str) -> set[str]:
    """Returns the underscored attributes that a file takes from anything but itself, its modules and its classes."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    set_here = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {n for n in found if n.startswith("_") and not n.startswith("__")} - own - set_here - NOT_MEANT


def test_private_names_stand_in_one_file() -> None:
    guilty = {}
    for path in SOURCES:
        if path.name == "private_api.py":
            continue
        source = path.read_text(encoding="utf-8")
        found = sorted(private_attributes(source)) + [match[0] for match in OF_OTHERS.finditer(source)]
        if found:
            guilty[str(path.relative_to(ROOT))] = found
    assert guilty == {}


@pytest.mark.parametrize("line", ["model._flatten_layers()", "from keras.src import ops", "a.b._functional.inputs"])
def test_it_catches_a_use_elsewhere(line: str) -> None:
    assert private_attributes(line) or OF_OTHERS.search(line)


def test_every_function_has_a_canary() -> None:
    functions = {
        n for n, f in inspect.getmembers(private_api, inspect.isfunction) if f.__module__ == private_api.__name__
    }
    assert functions == {name.removeprefix("test_canary_") for name in globals() if name.startswith("test_canary_")}


@pytest.mark.parametrize("package", private_api.HELD_WITH)
def test_ceilings_stand_just_above_what_was_seen(package: str) -> None:
    """`pip` must not bring a version in which nobody has run these canaries."""
    line = re.search(rf'"{package}>=[\d.]+,<([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert line, package
    major, minor = private_api.HELD_WITH[package].split(".")[:2]
    assert line[1] == f"{major}.{int(minor) + 1}"
    installed = version(package).split(".")[:2]
    assert [int(part) for part in installed] <= [int(major), int(minor)]


@pytest.fixture(scope="module")
def net() -> Any:
    import keras

    layers = keras.layers
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    frame = keras.Input((4,))
    x = layers.Bidirectional(layers.LSTM(2, name="lstm"), name="both")(layers.Reshape((2, 2), name="rows")(frame))
    return keras.Model(frame, layers.Dropout(0.5, name="drop")(shared(shared(inner(x)))), name="net")


def test_canary_flatten_layers(net: Any) -> None:
    names = [layer.name for layer in private_api.flatten_layers(net)]
    assert names[0] == "net"
    assert {"inner", "deep", "both", "forward_lstm", "shared"} <= set(names)
    assert "forward_lstm" not in [layer.name for layer in net.layers], "then the public walk is enough"
    assert "net" not in [layer.name for layer in private_api.flatten_layers(net, include_self=False)]


def test_canary_made_untrainable() -> None:
    import keras

    norm, dense = keras.layers.BatchNormalization(), keras.layers.Dense(3)
    norm.build((None, 4)), dense.build((None, 4))
    dense.enable_lora(2)  # freezes the kernel it has, which was made to be trained
    assert [v.name for v in private_api.made_untrainable(norm)] == ["moving_mean", "moving_variance"]
    assert private_api.made_untrainable(dense) == []
    assert [v.name for v in dense.non_trainable_variables] == ["kernel"]


def test_canary_restart_automatic_names() -> None:
    import keras

    private_api.restart_automatic_names()
    assert [keras.layers.Dense(1).name for _ in range(2)] == ["dense", "dense_1"]
    private_api.restart_automatic_names()
    assert keras.layers.Dense(1).name == "dense"


def test_canary_automatic_names() -> None:
    import keras

    private_api.restart_automatic_names()
    keras.layers.Dense(1)
    assert private_api.automatic_names() == {"dense": 1}


def test_canary_count_automatic_names_from() -> None:
    import keras

    private_api.restart_automatic_names()
    private_api.count_automatic_names_from({"dense": 3, "flatten": 1})
    private_api.count_automatic_names_from({"dense": 2})
    assert [layer(1).name for layer in (keras.layers.Dense, keras.layers.ReLU)] == ["dense_3", "re_lu"]
    assert keras.layers.Flatten().name == "flatten_1"


def test_canary_ops_are_deterministic() -> None:
    import tensorflow as tf

    private_api.let_ops_race()
    assert not private_api.ops_are_deterministic()
    tf.config.experimental.enable_op_determinism()
    assert private_api.ops_are_deterministic()


def test_canary_let_ops_race() -> None:
    """Draws without a seed are refused only as long as ops are deterministic."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    private_api.let_ops_race()
    assert tf.random.uniform((2,)).shape == (2,)


def test_canary_functional_graph(net: Any) -> None:
    import keras

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    plain = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    assert private_api.functional_graph(net) is net
    assert [op.name for op in private_api.functional_graph(plain).operations][1:] == [plain.layers[0].name]
    assert private_api.functional_graph(Own()) is None


def test_canary_run_graph(net: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    called: list[str] = []

    def call_of(operation: Any) -> Any:
        called.append(operation.name)
        return operation

    np.testing.assert_array_equal(private_api.run_graph(net, [x], call_of), net(x, training=False))
    assert called.count("shared") == 2


def test_canary_calls_in_graph(net: Any) -> None:
    names = [operation.name for operation in private_api.calls_in_graph(net)]
    assert names.count("shared") == 2
    assert names.count("inner") == names.count("drop") == 1


def test_canary_calls_of(net: Any) -> None:
    shared = private_api.calls_of(net.get_layer("shared"))
    assert len(shared) == 2
    assert all(len(given) == len(told) == 1 for given, told in shared)


def test_canary_called_after(net: Any) -> None:
    assert [op.name for op in private_api.called_after(net.get_layer("both"))] == ["inner"]
    assert private_api.called_after(net.get_layer("drop")) == []


def test_canary_takes_training(net: Any) -> None:
    assert private_api.takes_training(net.get_layer("drop"))
    assert not private_api.takes_training(net.get_layer("rows"))


def test_canary_function_in_graph() -> None:
    import tensorflow as tf

    inner = tf.function(lambda x: x + 1.0)
    outer = tf.function(lambda x: inner(x) * 2.0).get_concrete_function(tf.TensorSpec((), tf.float32))
    call = next(op for op in outer.graph.get_operations() if "PartitionedCall" in op.type)
    found = private_api.function_in_graph(outer.graph, call.get_attr("f").name)
    assert "AddV2" in [op.type for op in found.graph.get_operations()]


def test_canary_one_scale_per_dense_layer() -> None:
    """Two outputs of very different size: one scale cannot hold both, two can."""
    import keras

    from export.convert.recipes import RECIPES
    from export.convert.to_tflite import to_tflite
    from export.tflite.editing import read_model

    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(200, use_bias=False)])
    frames = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)

    def most_scales(recipe: str) -> int:
        tensors = read_model(to_tflite(model, RECIPES[recipe], representative=frames)).subgraphs[0].tensors
        return max(len(t.quantization.scale) for t in tensors if t.quantization and t.quantization.scale is not None)

    assert (most_scales("int8"), most_scales("int8-legacy")) == (200, 1)
    with pytest.raises(AttributeError, match="TFLiteConverter has no"):
        private_api.one_scale_per_dense_layer(object())


def test_canary_cluster_keeping_zeros() -> None:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    dense = tf_keras.layers.Dense(8, name="dense")
    model = tf_keras.Sequential([tf_keras.layers.Input((16,)), dense])
    kernel = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    kernel[::2] = 0
    dense.set_weights([kernel, np.zeros(8)])
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    wrapped = tf_keras.models.clone_model(
        model, clone_function=lambda layer: private_api.cluster_keeping_zeros(layer, 4, start, keep_zeros=True)
    )
    stripped = tfmot.clustering.keras.strip_clustering(wrapped)
    shared = stripped.layers[-1].get_weights()[0]
    assert len(np.unique(shared)) <= 4


def test_canary_no_quantization() -> None:
    import tf_keras

    layer = tf_keras.layers.Dense(2)
    layer.build((None, 3))
    config = private_api.no_quantization()
    assert (config.get_weights_and_quantizers(layer), config.get_activations_and_quantizers(layer)) == ([], [])
    assert config.get_output_quantizers(layer) == []


def test_canary_without_clustering() -> None:
    """`tests/export/tuning/test_tuned_recipes.py` strips a whole cluster-preserving model; here a plain one is kept."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((3,)), tf_keras.layers.Dense(2, name="dense")])
    stripped = private_api.without_clustering(model)
    assert [tuple(w.shape) for w in stripped.weights] == [(3, 2), (2,)]


ALONE = """
import sys
from fl_mobile.models.private_api import interpreter_without_the_rest
assert interpreter_without_the_rest()
import tensorflow as tf
assert tf.lite.Interpreter.__name__ == "Interpreter"
assert "keras" not in sys.modules and "tensorflow.python.eager.context" not in sys.modules
assert not interpreter_without_the_rest(), "only before anything else imports TensorFlow"
"""


def test_canary_interpreter_without_the_rest() -> None:
    """That it answers alike is shown by `test_isolated_answers_are_the_same` in `tests/export/tflite/test_graph.py`."""
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_canary_author_gradient() -> None:
    import tensorflow as tf

    @tf.custom_gradient
    def doubled(x: Any) -> Any:
        return tf.identity(x) * 2.0, lambda upstream: upstream * 7.0

    graph = tf.function(lambda x: doubled(x) + 1.0).get_concrete_function(tf.TensorSpec((), tf.float32)).graph
    found = {op.type: private_api.author_gradient(op) for op in graph.get_operations()}
    assert found["AddV2"] is None
    own = [gradient for kind, gradient in found.items() if kind.startswith("Identity") and gradient]
    assert own, "an operation says whose gradient it has"
    assert all(callable(gradient) for gradient in own)


def test_canary_drawing_kernels() -> None:
    """That everything that draws comes by them is shown by `tests/export/training/test_draws.py`."""
    kernels = private_api.drawing_kernels()
    assert len({(kernel.module, kernel.name) for kernel in kernels}) == 6
    for kernel in kernels:
        taken = inspect.signature(getattr(kernel.module, kernel.name)).parameters
        assert (
            {"shape", "minval", "maxval"} <= taken.keys()
            if kernel.kind == "whole"
            else {"shape", "dtype"} <= taken.keys()
        )
        assert ("key" in taken) == kernel.seeded


def test_canary_saved_model_to_tflite(tmp_path: Path) -> None:
    """The public converter gives the same operations, which is why the short way may stand for it."""
    import tensorflow as tf

    from export.tflite.graph import read_graph

    module = tf.Module()
    module.w = tf.Variable(tf.ones((3, 2)))

    @tf.function(input_signature=[tf.TensorSpec((4, 3), name="x")])
    def step(x: Any) -> Any:
        module.w.assign_sub(0.1 * tf.transpose(x[:2]))
        return {"y": tf.nn.relu(x @ module.w) + 1.0}

    tf.saved_model.save(module, tmp_path, signatures={"step": step})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    converter.experimental_enable_resource_variables = True
    public, private = (
        read_graph(bytes(data))
        for data in (converter.convert(), private_api.saved_model_to_tflite(str(tmp_path), ["step"]))
    )
    assert (private.ops, private.signatures) == (public.ops, public.signatures)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel of one signature with weights."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32))
    folder = tmp_path_factory.mktemp("served")

    @tf.function(input_signature=[tf.TensorSpec((1, 40), name="x")])
    def serve(x: Any) -> Any:
        return {"y": tf.nn.relu(x @ module.w) + 1.0}

    tf.saved_model.save(module, folder, signatures={"serve": serve})
    return str(folder)


def test_canary_saved_model_converter(served: str) -> None:
    import tensorflow as tf

    public, private = (
        tf.lite.TFLiteConverter.from_saved_model(served, ["serve"]),
        private_api.saved_model_converter(served, ["serve"]),
    )
    assert type(private) is type(public)
    left_out = {"_trackable_obj", "target_spec", "_metadata", "_tflite_metrics"}  # the loaded model, and objects
    assert {k: v for k, v in vars(private).items() if k not in left_out} == {
        k: v for k, v in vars(public).items() if k not in left_out
    }


@pytest.mark.parametrize("calibrated", [False, True])
def test_canary_converted(served: str, calibrated: bool) -> None:
    """Byte for byte the public way, with and without calibration."""
    import tensorflow as tf

    made = []
    for short in (False, True):
        converter = private_api.saved_model_converter(served, ["serve"])
        if calibrated:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: [{"x": np.full((1, 40), n, np.float32)} for n in (-1, 1)]
        made.append(private_api.converted(converter) if short else bytes(converter.convert()))
    assert made[0] == made[1]


@pytest.mark.parametrize("int16", [False, True])
def test_canary_calibrated_by(served: str, int16: bool) -> None:
    """Byte for byte what the whole of TensorFlow makes, if the ranges are its calibrator's; and other ranges matter."""
    import tensorflow as tf
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    def ranges(data: bytes, samples: Any) -> bytes:
        return bytes(Calibrator(data).calibrate(samples))

    def doubled(data: bytes, samples: Any) -> bytes:
        return ranges(data, lambda: [{"x": 2 * sample["x"]} for sample in samples()])

    made = []
    for own in (None, ranges, lambda data, samples: None, doubled):
        converter = private_api.saved_model_converter(served, ["serve"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: [{"x": np.full((1, 40), n, np.float32)} for n in (-1, 1)]
        if int16:
            kind = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [kind, tf.lite.OpsSet.TFLITE_BUILTINS]
        if own is not None:
            private_api.calibrated_by(converter, own, lambda data: True)
        made.append(private_api.converted(converter))
    assert made[0] == made[1] == made[2] != made[3]


@pytest.mark.parametrize(("floats", "right_after"), [(False, 3), (False, 99), (True, 99)])
def test_what_is_quantised_wrongly_is_quantised_again(served: str, floats: bool, right_after: int) -> None:
    import tensorflow as tf
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    judged: list[bytes] = []

    def is_right(data: bytes) -> bool:
        judged.append(data)
        return len(judged) == right_after

    converter = private_api.saved_model_converter(served, ["serve"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [{"x": np.full((1, 40), n, np.float32)} for n in (-1, 1)]
    if not floats:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    private_api.calibrated_by(converter, lambda data, of: bytes(Calibrator(data).calibrate(of)), is_right)
    if right_after == 99 and not floats:
        with pytest.raises(RuntimeError, match="20 times TensorFlow's quantiser left an operation in float32"):
            private_api.converted(converter)
        assert len(judged) == 20
    else:
        assert private_api.converted(converter)
        assert len(judged) == (0 if floats else 3)
