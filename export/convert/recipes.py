"""The ways a Keras model becomes a phone artifact: one row per recipe, one function per converter setting.

The name decodes: what the weights are stored as, and for ``int*`` what the arithmetic runs in.

| recipe | weights | arithmetic | for |
|---|---|---|---|
| ``float32`` | float32 | float32 | the reference; CPU |
| ``float16`` | float16 | float32 (CPU) or float16 (GPU) | GPU delegates; half the bytes, no calibration |
| ``dynamic-int8`` | int8 | int8 × float activations | CPU; a quarter of the bytes, no calibration |
| ``int8`` | int8 | int8, frame and probabilities ``uint8`` | CPU, Edge TPU, Hexagon/NPU, microcontrollers |
| ``int8-legacy`` | int8 | as ``int8``, dense layers per tensor | accelerators and TFLM older than TF 2.16 |
| ``int16x8`` | int8 | int16 activations | when ``int8`` loses accuracy; slow reference kernels on many CPUs |

Before a conversion the weights may be tuned on public data: ``TUNED_RECIPES``, named ``<tuning>-<conversion>`` with a
row of ``export.tuning.TUNINGS``, e.g. ``sparse-80-int8``.

Sources: LiteRT ``post_training_quantization.md``; LiteRT#3596 and tflite-micro#2602 for per-channel dense layers.
To add a recipe: write one function, add one row; ``tests/export/convert/test_recipes.py`` walks this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from fl_mobile.errors import ConfigError, nearest
from fl_mobile.models.private_api import one_scale_per_dense_layer

# What the converter reads while it calibrates: one {input name: [1, ...]} mapping per frame.
Calibration = Callable[[], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may stray from Keras before it is refused; ``export.verify.parity`` judges, and says why so.

    Differences are probabilities, or shares of the range of an output that is none. Shares are turned into counts and
    one changed class is always forgiven, because 1 of 20 samples is not a measured 5 %.

    Attributes:
        max_abs: Largest difference of any probability.
        outliers: Share of samples that may have a larger one.
        mean_abs: Mean difference over all probabilities.
        mean_values: The same of an output that is none, as a share of its range. More, because of ten probabilities
            eight are near zero and do not differ.
        agreement: Least share of samples with the same first class as Keras, ties forgiven.
        accuracy_drop: Most accuracy that may be lost against Keras, as a share (0.01 is one point).
        class_accuracy_drop: The same for the worst single class.
        tie_margin: Keras' own preference, in probability, below which a flip is a tie however small the artifact's
            noise: the output grid of an 8-bit artifact (1/256) cannot tell such classes apart.
        replay_abs: Largest difference between two runtimes running the same artifact on the golden frames.
    """

    max_abs: float
    outliers: float
    mean_abs: float
    mean_values: float
    agreement: float
    accuracy_drop: float
    class_accuracy_drop: float
    tie_margin: float
    replay_abs: float


@dataclass(frozen=True)
class Recipe:
    """One row of the table: how to set the converter, and what the result must still achieve.

    Attributes:
        name: Key in ``RECIPES``; also the file name of the artifact.
        configure: Sets a ``tf.lite.TFLiteConverter``; gets the calibration frames when there are any.
        weight_bits: Bits per stored kernel weight.
        calibrated: Whether representative frames are required.
        integer_frames: Whether an image artifact computes on the ``uint8`` frame without any float operation
            and answers in ``uint8``. Models whose input is not an image keep float32 at both ends.
        tolerance: The parity gate.
        suits: Hardware and purpose, for people.
        tuning: Row of ``export.tuning.TUNINGS`` that the weights go through first; empty for none.
        conversion: For tuned recipes the plain recipe whose tolerance holds between the tuned Keras model and the
            artifact; ``tolerance`` then holds against the model before tuning.
    """

    name: str
    configure: Callable[[Any, Calibration | None], None]
    weight_bits: int
    calibrated: bool
    integer_frames: bool
    tolerance: Tolerance
    suits: str
    tuning: str = ""
    conversion: str = ""


def keep_float32(converter: Any, calibration: Calibration | None) -> None:
    """Leaves weights and arithmetic as Keras has them."""
    converter.optimizations = []


def store_zeros_as_gaps(converter: Any, calibration: Calibration | None) -> None:
    """Stores kernels of mostly zeros as their other values and places; arithmetic stays float32.

    The runtime computes dense layers from that form or widens them at load (``DENSIFY``): a file 4 times smaller at
    the latency of ``float32``. Never with int8: LiteRT 2.3 refuses such files (XNNPACK fails to prepare).
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


def store_float16(converter: Any, calibration: Calibration | None) -> None:
    """Stores weights as float16; the runtime widens them once at load, or computes in float16 on a GPU."""
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def store_int8(converter: Any, calibration: Calibration | None) -> None:
    """Stores kernels as int8; activations stay float32 outside and are quantised on the fly inside each kernel.

    Dense layers get one scale each: with one per channel they need FULLY_CONNECTED version 12, which tflite-runtime
    2.14 refuses, and the demo CNN showed nothing for it (same latency, mean difference 8.4e-5 against 1.1e-4).
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    one_scale_per_dense_layer(converter)


def compute_int8(converter: Any, calibration: Calibration | None) -> None:
    """Makes every operation int8; one without an int8 kernel is an error, never a silent float island."""
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def compute_int8_dense_per_tensor(converter: Any, calibration: Calibration | None) -> None:
    """As ``compute_int8`` with one scale per dense layer, which accelerators before TF 2.16 insist on."""
    compute_int8(converter, calibration)
    one_scale_per_dense_layer(converter)


def compute_int16(converter: Any, calibration: Calibration | None) -> None:
    """Makes activations int16 over int8 weights.

    Float builtins stay allowed: the leading ``CAST`` of the camera frame has no int16 kernel.
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


# Worst of seeds 0, 1, 2 on 1,000 held-out digits, as max and mean probability difference. The smart-camera CNN: float32
# 1.5e-6 and 1.3e-8, float16 1e-3 and 3e-6, dynamic-int8 2e-2 and 1e-4, int8 6e-2 and 5e-4, int16x8 2e-2 and 2e-4.
# MobileNetV2 at 96 px, an uncertain model of 52 layers: float16 3.5e-2 and 6e-4, dynamic-int8 0.32 and 8e-3, int8 0.41
# (one frame beyond 0.4) and 1.1e-2. Counting class changes are at most 3 of 1,000, so 1 % are allowed. A zeroed layer,
# shuffled outputs or a wrong normalisation are far beyond every gate (tests/export/verify/test_verify.py).
_FLOAT32 = Tolerance(1e-4, 0.0, 1e-5, 1e-4, 0.999, 0.001, 0.01, 2e-4, 1e-5)
_FLOAT16 = Tolerance(0.05, 0.0, 1e-3, 5e-3, 0.998, 0.005, 0.02, 0.01, 0.01)
_WEIGHTS_INT8 = Tolerance(0.4, 0.002, 0.01, 0.05, 0.99, 0.01, 0.05, 0.04, 0.02)
_INT8 = Tolerance(0.4, 0.002, 0.02, 0.1, 0.99, 0.01, 0.05, 0.06, 0.04)

RECIPES: dict[str, Recipe] = {
    "float32": Recipe("float32", keep_float32, 32, False, False, _FLOAT32, "the reference; any CPU"),
    "float16": Recipe("float16", store_float16, 16, False, False, _FLOAT16, "GPU; half the bytes"),
    "dynamic-int8": Recipe("dynamic-int8", store_int8, 8, False, False, _WEIGHTS_INT8, "CPU without calibration data"),
    "int8": Recipe("int8", compute_int8, 8, True, True, _INT8, "CPU, Edge TPU, NPU, microcontrollers"),
    "int8-legacy": Recipe(
        "int8-legacy", compute_int8_dense_per_tensor, 8, True, True, _INT8, "accelerators older than TF 2.16"
    ),
    "int16x8": Recipe("int16x8", compute_int16, 8, True, False, _WEIGHTS_INT8, "when int8 loses accuracy; slower"),
}

# Against the model before tuning. Further training moves every answer, and of a model that had not learnt enough it
# moves them to better ones; so the answers are compared with the true classes, not with the model's. That the artifact
# is the tuned model is judged apart, with the tolerance of its conversion.
_TUNED = Tolerance(1.0, 0.0, 1.0, 1.0, 0.0, 0.02, 0.1, 0.06, 0.04)


def _tuned(tuning: str, conversion: str, suits: str, configure: Any = None) -> Recipe:
    plain = RECIPES[conversion]
    return replace(
        plain,
        name=f"{tuning}-{conversion}",
        configure=configure or plain.configure,
        tolerance=replace(_TUNED, replay_abs=plain.tolerance.replay_abs),
        suits=suits,
        tuning=tuning,
        conversion=conversion,
    )


# Clustered kernels get one scale per dense layer: with one per channel, 16 shared values would become thousands.
_SHARED = compute_int8_dense_per_tensor
TUNED_RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        _tuned("sparse-80", "float32", "CPU; file 4× smaller than float32", store_zeros_as_gaps),
        _tuned("sparse-80", "int8", "small downloads: zips 3× smaller than int8"),
        _tuned("sparse-90", "int8", "smaller downloads, some accuracy"),
        _tuned("sparse-2by4", "int8", "NPUs and GPUs with 2:4 sparse units"),
        _tuned("clustered-16", "float32", "small downloads in float: zips 5× smaller than float32"),
        _tuned("clustered-16", "int8", "small downloads; NPUs that expand shared weights", _SHARED),
        _tuned("qat", "int8", "when int8 loses accuracy"),
        _tuned("sparse-80-qat", "int8", "as sparse-80-int8, when that loses accuracy"),
        _tuned("sparse-80-clustered-16", "int8", "smallest downloads", _SHARED),
        _tuned("sparse-80-clustered-16-qat", "int8", "smallest downloads, when that loses accuracy", _SHARED),
    )
}

CORE_RECIPES: tuple[str, ...] = ("float32", "float16", "dynamic-int8", "int8")


def find_recipe(name: str) -> Recipe:
    """Returns the row of ``RECIPES`` or ``TUNED_RECIPES`` called ``name``.

    Raises:
        ConfigError: No row has that name; the message holds the nearest.

    >>> find_recipe("sparse-80-int8").tuning
    'sparse-80'
    """
    rows = {**RECIPES, **TUNED_RECIPES}
    if name not in rows:
        raise ConfigError(f"recipe {name!r} is not known.{nearest(name, rows)}")
    return rows[name]


def is_recipe(name: object) -> bool:
    """Returns whether a row has that name."""
    return name in RECIPES or name in TUNED_RECIPES
