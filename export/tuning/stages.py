"""The three things TFMOT does to a ``tf_keras`` twin, one function per stage; each trains and takes its wrappers off.

Each takes the twin with the weights of the stage before and leaves a plain model. TFMOT 0.8.1 needs these ways around:
whole-model wrapping fails on ``Rescaling`` (its registry holds the metaclass), so layers are wrapped one by one; and
clustering that preserves zeros is only in its ``experimental`` module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.tuning.bridge import QUANTIZED, Twin, tf_keras_and_tfmot, weights_of
from export.tuning.table import ZERO_RUN, Tuning
from fl_mobile.errors import ExportError
from fl_mobile.models.private_api import cluster_keeping_zeros, no_quantization, without_clustering
from fl_mobile.tensors import Tensors
from fl_mobile.wire.pruning_mask import SMALLEST_KERNEL

_TUNED_LAYERS = ("Conv1D", "Conv2D", "Dense")
_SCHEDULE_PARTS = 20  # how often a mask is recomputed while the polynomial schedule rises
# Layers that TFMOT splits in two or cannot quantise, but only together with their weights.
_NEVER_QUANTIZED = ("Rescaling", "Conv1D")


@dataclass(frozen=True)
class Fit:
    """Trains a compiled or wrapped ``tf_keras`` model on the tuning set.

    Attributes:
        run: Called with the model and a list of ``tf_keras`` callbacks.
        steps: Optimizer steps of one run.
        frames: ``float32[k, ...]`` some of the tuning frames, to measure activation ranges on.
    """

    run: Callable[[Any, list[Any]], None]
    steps: int
    frames: np.ndarray


def tuned_paths(twin: Twin, tuning: Tuning) -> list[str]:
    """Returns the Keras 3 paths of the kernels that stages prune and cluster, in model order.

    Raises:
        ExportError: There is none, and the tuning prunes or clusters.
    """
    chosen = [
        path
        for path, (layer, name) in twin.places.items()
        if name == "kernel" and _is_tuned(twin.model.get_layer(layer))
    ]
    if not chosen and (tuning.sparsity or tuning.clusters):
        raise ExportError(
            f"model {twin.model.name!r} has no dense or convolution kernel of {SMALLEST_KERNEL} or more weights to tune"
        )
    return chosen


def prune(twin: Twin, tuning: Tuning, fit: Fit) -> Tensors:
    """Returns the weights after magnitude pruning: a polynomial rise over the first half, constant afterwards.

    Zhu & Gupta, "To prune, or not to prune" (2017). 2:4 masks are chosen once, at the first step.
    """
    _, tfmot = tf_keras_and_tfmot()
    pruning = tfmot.sparsity.keras
    if tuning.two_of_four:
        options = {"pruning_schedule": pruning.ConstantSparsity(0.5, 0), "sparsity_m_by_n": (2, 4)}
    else:
        every = max(1, fit.steps // (2 * _SCHEDULE_PARTS))
        rise = fit.steps // 2 // every * every  # TFMOT stops short of the goal when the last step is not a multiple
        schedule = pruning.PolynomialDecay(0.0, tuning.sparsity, 0, rise, frequency=every)
        options = {"pruning_schedule": schedule}

    def wrapper(layer: Any) -> Any:
        runs = type(layer).__name__ == "Dense" and layer.kernel.shape[0] % ZERO_RUN == 0 and not tuning.two_of_four
        return pruning.prune_low_magnitude(layer, block_size=(ZERO_RUN if runs else 1, 1), **options)

    wrapped = _wrap(twin, wrapper)
    fit.run(wrapped, [pruning.UpdatePruningStep()])
    return weights_of(twin, pruning.strip_pruning(wrapped))


def cluster(twin: Twin, tuning: Tuning, fit: Fit) -> Tensors:
    """Returns the weights after sharing values: k-means++ centroids, then centroids and memberships are trained.

    Han et al., "Deep compression" (2016). Zeros of an earlier stage stay, zero being one of the centroids.
    """
    _, tfmot = tf_keras_and_tfmot()
    centroids = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    wrapped = _wrap(
        twin,
        lambda layer: cluster_keeping_zeros(layer, tuning.clusters, centroids, keep_zeros=bool(tuning.sparsity)),
    )
    fit.run(wrapped, [])
    return weights_of(twin, tfmot.clustering.keras.strip_clustering(wrapped))


def quantize_aware(twin: Twin, tuning: Tuning, fit: Fit) -> Tensors:
    """Returns the weights after training with fake-quantised kernels and activations (Jacob et al. 2018).

    Zeros and shared values of earlier stages are kept by TFMOT's collaborative schemes (PQAT, CQAT, PCQAT).

    Raises:
        ExportError: TFMOT cannot quantise a layer of the model.
    """
    tf_keras, tfmot = tf_keras_and_tfmot()
    quantization, combine = tfmot.quantization.keras, tfmot.experimental.combine
    left_alone = no_quantization()
    scheme: Any = quantization.default_8bit.Default8BitQuantizeScheme()
    if tuning.clusters:
        scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=bool(tuning.sparsity))
    elif tuning.sparsity:
        scheme = combine.Default8BitPrunePreserveQuantizeScheme()

    def annotate(layer: Any) -> Any:
        # Left without a config, such a layer makes the cluster-preserving scheme fail.
        config = left_alone if type(layer).__name__ in _NEVER_QUANTIZED else None
        return quantization.quantize_annotate_layer(layer, config)

    before = {path: np.array(value) for path, value in weights_of(twin, twin.model).items()}
    try:
        annotated = tf_keras.models.clone_model(twin.model, clone_function=annotate)
        annotated.set_weights(twin.model.get_weights())
        with quantization.quantize_scope():
            wrapped = quantization.quantize_apply(annotated, scheme)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ExportError(f"TFMOT cannot train model {twin.model.name!r} under fake quantisation: {error}") from error
    _start_ranges(wrapped, twin, fit.frames)
    fit.run(wrapped, [])
    if tuning.clusters:
        wrapped = without_clustering(wrapped)
    after = weights_of(twin, wrapped)
    if tuning.sparsity:  # the wrappers mask inside the graph; the variables underneath may have moved
        for path in tuned_paths(twin, tuning):
            after[path] = after[path] * (before[path] != 0)
            if tuning.clusters:
                after[path] = _without_drifted_zero(after[path], tuning.clusters)
    return after


def _start_ranges(wrapped: Any, twin: Twin, frames: np.ndarray) -> None:
    """Sets the activation ranges of ``wrapped`` to those of the float model on ``frames``.

    TFMOT starts them all at -6..6 and follows by a thousandth a step: for the first thousands of steps every larger
    activation is cut off, and the weights learn to live with that (demo CNN, seed 1: 0.5 points lost).
    """
    tf_keras, _ = tf_keras_and_tfmot()
    layers = [layer for layer in twin.model.layers if type(layer).__name__ != "InputLayer"]
    answers = tf_keras.Model(twin.model.input, [layer.output for layer in layers])(frames, training=False)
    ranges = {layer.name: (float(np.min(a)), float(np.max(a))) for layer, a in zip(layers, answers, strict=True)}
    ranges["quantize_layer"] = float(frames.min()), float(frames.max())
    for layer in wrapped.layers:
        low, high = ranges.get(layer.name.removeprefix(QUANTIZED), (0.0, 0.0))
        for variable in layer.weights if low < high else ():
            name = variable.name.split(":")[0].rpartition("/")[2]
            if name.endswith("_min") and not name.startswith(("kernel", "depthwise_kernel")):
                variable.assign(min(low, 0.0))
            elif name.endswith("_max") and not name.startswith(("kernel", "depthwise_kernel")):
                variable.assign(max(high, 0.0))


STAGES: dict[str, Callable[[Twin, Tuning, Fit], Tensors]] = {
    "prune": prune,
    "cluster": cluster,
    "qat": quantize_aware,
}


def _without_drifted_zero(kernel: np.ndarray, clusters: int) -> np.ndarray:
    """Returns ``kernel`` with its least value set to zero when it holds one value too many.

    TFMOT lets the centroid at zero drift while its mask keeps the zeros: one shared value becomes two.
    """
    values = np.unique(kernel)
    if len(values) <= clusters:
        return kernel
    least = values[values != 0][np.abs(values[values != 0]).argmin()]
    return np.where(kernel == least, np.float32(0), kernel)


def _is_tuned(layer: Any) -> bool:
    if type(layer).__name__ not in _TUNED_LAYERS:
        return False
    return int(np.prod(layer.kernel.shape)) >= SMALLEST_KERNEL


def _wrap(twin: Twin, wrapper: Callable[[Any], Any]) -> Any:
    tf_keras, _ = tf_keras_and_tfmot()
    return tf_keras.models.clone_model(
        twin.model, clone_function=lambda layer: wrapper(layer) if _is_tuned(layer) else layer
    )
