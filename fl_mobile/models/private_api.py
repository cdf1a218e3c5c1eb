"""Every use of something private in Keras, TensorFlow or TFMOT, and nothing else: one function a use.

None of these has a public way. A new version may take one away or let it mean something else, so ``pyproject.toml`` has
ceilings on those packages, and ``tests/fl_mobile/models/test_private_api.py`` has one canary a function: run it before
a ceiling is raised. No other file may touch them; a test reads the sources for that.

Nothing is imported before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

HELD_WITH = {"keras": "3.15.1", "tensorflow": "2.21.0", "tensorflow-model-optimization": "0.8.1"}
"""Package → the version that every canary was last seen to hold with."""

_QUANTISED_AT_MOST = 20
"""A GRU comes out wrong in a third of all times."""


def flatten_layers(model: Any, *, include_self: bool = True) -> list[Any]:
    """Returns all Keras layers inside ``model``, those in layers that are no models too, which ``layers`` omits.

    ``Layer._flatten_layers``: the same since Keras 2.
    """
    return list(model._flatten_layers(include_self=include_self))


def made_untrainable(layer: Any) -> list[Any]:
    """Returns the layer's own variables that were made with ``trainable=False``; not those that were frozen later.

    ``Layer._non_trainable_variables``: the public ``non_trainable_variables`` holds both kinds.
    """
    return list(layer._non_trainable_variables)


def restart_automatic_names() -> None:
    """Makes Keras number unnamed layers from the start again.

    ``keras.src.utils.naming.reset_uids``; the public ``clear_session`` would reset far more.
    """
    from keras.src.utils import naming

    naming.reset_uids()


def automatic_names() -> dict[str, int]:
    """Returns how many unnamed layers of each kind Keras has counted.

    Global attribute ``object_name_uids`` of ``keras.src.backend.common.global_state``.
    """
    from keras.src.backend.common import global_state

    return dict(global_state.get_global_attribute("object_name_uids") or {})


def count_automatic_names_from(counts: dict[str, int]) -> None:
    """Makes Keras number unnamed layers of each kind from ``counts`` on, unless it is further already.

    As `automatic_names`, and ``keras.src.utils.naming.reset_uids`` where nothing was counted yet.
    """
    from keras.src.backend.common import global_state
    from keras.src.utils import naming

    if global_state.get_global_attribute("object_name_uids") is None:
        naming.reset_uids()
    now = global_state.get_global_attribute("object_name_uids")
    for name, count in counts.items():
        now[name] = max(now.get(name, 0), count)


def ops_are_deterministic() -> bool:
    """Returns whether TensorFlow takes kernels that do not race.

    ``tensorflow.python.framework.config.is_op_determinism_enabled``: public is only how to begin with it.
    """
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


def let_ops_race() -> None:
    """Ends what ``tf.config.experimental.enable_op_determinism`` began.

    ``tensorflow.python.framework.config.disable_op_determinism``.
    """
    from tensorflow.python.framework import config

    config.disable_op_determinism()


def functional_graph(model: Any) -> Any | None:
    """Returns the functional model behind ``model``; None when it is subclassed and so has no graph of layers.

    ``Sequential._functional``, and whether ``Function._run_through_graph`` is there.
    """
    import keras

    function = model._functional if isinstance(model, keras.Sequential) else model
    return function if hasattr(function, "_run_through_graph") else None


def run_graph(function: Any, inputs: Sequence[Any], call_of: Callable[[Any], Callable[..., Any]]) -> Any:
    """Returns the answer of a functional graph in which ``call_of(operation)`` is called instead of each operation.

    ``Function._run_through_graph``.
    """
    return function._run_through_graph(list(inputs), operation_fn=call_of)


def calls_in_graph(function: Any) -> list[Any]:
    """Returns the operation of every call in a functional graph: one that is used twice stands there twice.

    ``Function._nodes_by_depth``.
    """
    return [node.operation for nodes in function._nodes_by_depth.values() for node in nodes]


def calls_of(layer: Any) -> list[tuple[list[Any], list[Any]]]:
    """Returns inputs and outputs of every symbolic call of a layer.

    ``Operation._inbound_nodes``.
    """
    return [(node.input_tensors, node.outputs) for node in layer._inbound_nodes]


def called_after(operation: Any) -> list[Any]:
    """Returns the operations that take what ``operation`` answers, in any model it is part of.

    ``Operation._outbound_nodes``.
    """
    return [node.operation for node in operation._outbound_nodes]


def takes_training(layer: Any) -> bool:
    """Returns whether a layer's ``call`` has an argument ``training``.

    ``Layer._call_has_training_arg``.
    """
    return bool(getattr(layer, "_call_has_training_arg", False))


def function_in_graph(graph: Any, name: str) -> Any:
    """Returns the function called ``name`` that a TensorFlow graph holds, with its own ``graph``.

    ``FuncGraph._get_function``.
    """
    return graph._get_function(name)


@dataclass(frozen=True)
class DrawingKernel:
    """A function that makes one operation that draws: where it is looked up, what it draws, and whether by a seed."""

    module: Any
    name: str
    kind: str
    seeded: bool


def drawing_kernels() -> list[DrawingKernel]:
    """Returns what all of ``tf.random``, ``tf.nn``, ``tf.image`` and ``keras.random`` draws uniform, normal and whole
    numbers with; each looks it up in its module when it draws.

    ``tensorflow.python.ops.gen_random_ops`` and ``gen_stateless_random_ops_v2``.
    """
    from tensorflow.python.ops import gen_random_ops, gen_stateless_random_ops_v2

    names = [("random_uniform", "uniform"), ("random_standard_normal", "normal"), ("random_uniform_int", "whole")]
    keyed = [("random_uniform_v2", "uniform"), ("random_normal_v2", "normal"), ("random_uniform_int_v2", "whole")]
    return [DrawingKernel(gen_random_ops, name, kind, seeded=False) for name, kind in names] + [
        DrawingKernel(gen_stateless_random_ops_v2, f"stateless_{name}", kind, seeded=True) for name, kind in keyed
    ]


def one_scale_per_dense_layer(converter: Any) -> None:
    """Lets a ``TFLiteConverter`` quantise dense kernels with one scale each, not with one per output.

    ``_experimental_disable_per_channel_quantization_for_dense_layers``: TensorFlow 2.16 and newer. A converter without
    it takes the new attribute in silence, so its absence is an error here.
    """
    name = "_experimental_disable_per_channel_quantization_for_dense_layers"
    if not hasattr(converter, name):
        raise AttributeError(f"this TensorFlow's TFLiteConverter has no {name}; versions known: {HELD_WITH}")
    setattr(converter, name, True)


def saved_model_to_tflite(folder: str, signatures: Sequence[str]) -> bytes:
    """Returns signatures of a SavedModel as ``.tflite`` of builtin operations, variables kept.

    ``convert_saved_model`` with what ``tf.lite.TFLiteConverter`` gives it, ``_get_base_converter_args``. The public
    ``convert`` makes the same operations, but loads the SavedModel twice and parses its own result three times in
    Python: half the time of a training program's conversion.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import convert_saved_model

    converter = saved_model_converter(folder, signatures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.experimental_enable_resource_variables = True
    given = converter._get_base_converter_args()
    return bytes(convert_saved_model(enable_tflite_resource_variables=True, **given))


def saved_model_converter(folder: str, signatures: Sequence[str]) -> Any:
    """Returns what ``tf.lite.TFLiteConverter.from_saved_model`` does, which loads the SavedModel to look at its names.

    ``TFLiteSavedModelConverterV2`` and ``_set_original_model_type``, which the file's metadata tells.
    """
    import tensorflow as tf
    from tensorflow.lite.python import conversion_metadata_schema_py_generated as told
    from tensorflow.lite.python.lite import TFLiteConverterBase, TFLiteSavedModelConverterV2

    TFLiteConverterBase._set_original_model_type(told.ModelType.TF_SAVED_MODEL)
    return TFLiteSavedModelConverterV2(folder, {tf.saved_model.SERVING}, list(signatures))


def converted(converter: Any) -> bytes:
    """Returns what ``convert`` of a `saved_model_converter` does, to the byte.

    ``_convert_from_saved_model`` in ``_convert_and_export_metrics``, which adds the file's metadata. The public way
    loads the SavedModel twice more, for debug information that a SavedModel's conversion has no use for: most of the
    time of a small model, and a third of EfficientNetB0's.
    """
    from pathlib import Path

    from tensorflow.core.protobuf import saved_model_pb2

    if converter.saved_model_dir is None:  # of a kind that the importer does not know
        return bytes(converter.convert())
    saved = saved_model_pb2.SavedModel.FromString(Path(converter.saved_model_dir, "saved_model.pb").read_bytes())
    step = type(converter)._convert_from_saved_model
    return bytes(converter._convert_and_export_metrics(step, saved.meta_graphs[0].graph_def))


def calibrated_by(
    converter: Any,
    with_ranges: Callable[[bytes, Callable[[], Any]], bytes | None],
    is_right: Callable[[bytes], bool],
) -> None:
    """Lets a `saved_model_converter` ask ``with_ranges`` for the ranges of activations instead of its own calibrator.

    ``_quantize``: what follows its calibration, ``mlir_quantize`` or for int16 activations ``Calibrator`` that is shown
    nothing more, is done with what ``with_ranges`` makes of the float flatbuffer and of the function that yields the
    representative samples. Where that is None everything is TensorFlow's. Where floats are not allowed
    ``mlir_quantize``, which goes by addresses in memory, is repeated until ``is_right`` of the result.

    Raises:
        RuntimeError: Converting, if it never is.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    whole = converter._quantize

    def quantize(data: bytes, *how: Any) -> Any:
        input_type, output_type, activations, bias, floats, variables, debug = how
        samples = getattr(converter.representative_dataset, "input_gen", converter.representative_dataset)
        ours = converter.experimental_new_quantizer and not converter._experimental_calibrate_only
        ours = ours and not converter.target_spec._experimental_custom_op_registerers
        told = with_ranges(data, samples) if ours else None
        if told is None:
            return whole(data, *how)
        per_tensor = converter._experimental_disable_per_channel
        dense_per_tensor = converter._experimental_disable_per_channel_quantization_for_dense_layers
        if activations == tf.int16:
            return Calibrator(told).calibrate_and_quantize(
                *(list, input_type, output_type, floats, activations, bias),
                disable_per_channel=per_tensor,
                disable_per_channel_quantization_for_dense_layers=dense_per_tensor,
            )
        for _ in range(_QUANTISED_AT_MOST):
            made = mlir_quantize(
                *(told, per_tensor),
                input_data_type=input_type,
                output_data_type=output_type,
                enable_variable_quantization=variables,
                disable_per_channel_for_dense_layers=dense_per_tensor,
                debug_options_str=debug.SerializeToString(),
            )
            if floats or is_right(made):
                return made
        raise RuntimeError(f"{_QUANTISED_AT_MOST} times TensorFlow's quantiser left an operation in float32")

    converter._quantize = quantize


def cluster_keeping_zeros(layer: Any, clusters: int, centroids: Any, *, keep_zeros: bool) -> Any:
    """Returns a ``tf_keras`` layer whose kernel shares ``clusters`` values; zeros stay zero if wished.

    ``tensorflow_model_optimization.python.core.clustering.keras.experimental``: the public one moves zeros.
    """
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    return cluster.cluster_weights(layer, clusters, centroids, preserve_sparsity=keep_zeros)


def no_quantization() -> Any:
    """Returns the TFMOT config of a layer that is quantised nowhere.

    ``default_8bit_quantize_configs.NoOpQuantizeConfig``.
    """
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs

    return default_8bit_quantize_configs.NoOpQuantizeConfig()


def without_clustering(model: Any) -> Any:
    """Returns a cluster-preserving ``tf_keras`` model without the variables of its clustering.

    ``cluster_utils.strip_clustering_cqat``: the public way strips models that are not quantisation-aware only.
    """
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import cluster_utils

    return cluster_utils.strip_clustering_cqat(model)


def author_gradient(op: Any) -> Callable[..., Sequence[Any]] | None:
    """Returns the gradient that an author gave to an operation with ``tf.custom_gradient`` or a registered name.

    ``tensorflow.python.framework.ops.get_gradient_function`` and the attribute ``_gradient_op_type`` it reads. Calls of
    functions carry that attribute too, for TensorFlow's own use: None for them.
    """
    from tensorflow.python.framework import ops

    if op.type.endswith("PartitionedCall"):
        return None
    try:
        op.get_attr("_gradient_op_type")
    except ValueError:
        return None
    found: Callable[..., Sequence[Any]] = ops.get_gradient_function(op)
    return found


def interpreter_without_the_rest() -> bool:
    """Makes ``import tensorflow`` mean ``tf.lite.Interpreter`` alone in this process; returns whether it could.

    ``tensorflow.lite.python.interpreter`` under a package whose own ``__init__`` never runs. Only for a process that
    runs artifacts and ends: it starts in a tenth of a second instead of several. Where a version does not allow that,
    the process is left as it was and imports all of TensorFlow.
    """
    import sys
    from importlib.util import find_spec
    from types import ModuleType

    spec = None if "tensorflow" in sys.modules else find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        return False
    package: Any = ModuleType("tensorflow")
    package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
    before = set(sys.modules)
    sys.modules["tensorflow"] = package
    try:
        from tensorflow.lite.python.interpreter import Interpreter
    except (ImportError, AttributeError):
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "tensorflow":
                del sys.modules[name]
        return False
    package.lite.Interpreter = Interpreter
    return True
