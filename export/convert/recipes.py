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

``auto`` is no setting but a search over them (``export.variants.auto``). Before a conversion the weights may be tuned
on public data: ``TUNED_RECIPES``, named ``<tuning>-<conversion>`` with a row of ``export.tuning.TUNINGS``, e.g.
``sparse-80-int8``.

Sources: LiteRT ``post_training_quantization.md``; LiteRT#3596 and tflite-micro#2602 for per-channel dense layers.
To add a recipe: write one function, add one row; ``tests/export/convert/test_recipes.py`` walks this table. One of
somebody's own is asked for as ``package.module:name``. Its artifact is called by the row's own name and judged by the
tolerance of the plain recipe that the row names, so that a bundle is verified without its code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from export.convert.tolerances import FLOAT16, FLOAT32, INT8, TUNED, WEIGHTS_INT8, Tolerance
from fl_mobile.errors import ConfigError, nearest
from fl_mobile.models.private_api import one_scale_per_dense_layer
from fl_mobile.table import Table

# What the converter reads while it calibrates: one {input name: [1, ...]} mapping per frame.
Calibration = Callable[[], Iterable[dict[str, Any]]]


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
        instead: Plain recipe to try when this one loses too much; empty for none.
        conversion: For tuned recipes the plain recipe whose tolerance holds between the tuned Keras model and the
            artifact; ``tolerance`` then holds against the model before tuning. Of ``auto`` what it cannot do without.
            Of a recipe of one's own the plain one whose tolerance it has.
    """

    name: str
    configure: Callable[[Any, Calibration | None], None]
    weight_bits: int
    calibrated: bool
    integer_frames: bool
    tolerance: Tolerance
    suits: str
    tuning: str = ""
    instead: str = ""
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
    """Makes every operation int8 that TFLite has an int8 kernel for; of the others the report tells (`Variant`)."""
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


_ROWS = (
    Recipe(
        name="float32",
        configure=keep_float32,
        weight_bits=32,
        calibrated=False,
        integer_frames=False,
        tolerance=FLOAT32,
        suits="the reference; any CPU",
    ),
    Recipe(
        name="float16",
        configure=store_float16,
        weight_bits=16,
        calibrated=False,
        integer_frames=False,
        tolerance=FLOAT16,
        suits="GPU; half the bytes",
        instead="float32",
    ),
    Recipe(
        name="dynamic-int8",
        configure=store_int8,
        weight_bits=8,
        calibrated=False,
        integer_frames=False,
        tolerance=WEIGHTS_INT8,
        suits="CPU without calibration data",
        instead="float16",
    ),
    Recipe(
        name="int8",
        configure=compute_int8,
        weight_bits=8,
        calibrated=True,
        integer_frames=True,
        tolerance=INT8,
        suits="CPU, Edge TPU, NPU, microcontrollers",
        instead="int16x8",
    ),
    Recipe(
        name="int8-legacy",
        configure=compute_int8_dense_per_tensor,
        weight_bits=8,
        calibrated=True,
        integer_frames=True,
        tolerance=INT8,
        suits="accelerators older than TF 2.16",
        instead="int8",
    ),
    Recipe(
        name="int16x8",
        configure=compute_int16,
        weight_bits=8,
        calibrated=True,
        integer_frames=False,
        tolerance=WEIGHTS_INT8,
        suits="when int8 loses accuracy; slower",
        instead="dynamic-int8",
    ),
)
_PLAIN = {row.name: row for row in _ROWS}
_FILE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _check_own(found_by: str, row: Recipe) -> None:
    """Raises `ConfigError` unless a recipe of one's own can be told from the others, and judged without its code."""
    start, names = f"recipe {found_by}", (*_PLAIN, *TUNED_RECIPES, AUTO.name)
    taken = [other for other, one in RECIPES.items() if one.name == row.name and other != found_by]
    if row.name in names or taken:
        raise ConfigError(f"{start}: its name {row.name!r} is that of another recipe; artifacts are called by it")
    if not is_file_name(row.name):
        raise ConfigError(f"{start}: expected a name of a-z, 0-9 and -, for files are called by it; got {row.name!r}")
    if row.tuning:
        raise ConfigError(
            f"{start}: tuned recipes come with the package alone; tune the model first and leave tuning empty"
        )
    if row.conversion not in _PLAIN:
        known = ", ".join(_PLAIN)
        raise ConfigError(f"{start}: conversion must name the recipe that judges it ({known}), got {row.conversion!r}")
    judge = _PLAIN[row.conversion]
    if (row.tolerance, row.integer_frames) != (judge.tolerance, judge.integer_frames):
        raise ConfigError(f"{start}: tolerance and integer_frames must be those of its conversion, {row.conversion!r}")


RECIPES: Table[Recipe] = Table("recipe", Recipe, _PLAIN, _check_own)


def _tuned(tuning: str, conversion: str, suits: str, configure: Any = None) -> Recipe:
    plain = RECIPES[conversion]
    return replace(
        plain,
        name=f"{tuning}-{conversion}",
        configure=configure or plain.configure,
        tolerance=replace(TUNED, replay_abs=plain.tolerance.replay_abs),
        suits=suits,
        tuning=tuning,
        instead=conversion,
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

AUTO = replace(
    RECIPES["float32"],
    name="auto",
    tolerance=INT8,
    suits="the smallest file that is still the model; layers are kept in float32 or int16 where they must",
    conversion="float32",
)
"""A search over ``RECIPES``; what it finds is judged by the tolerance of the recipe it converts by."""

CORE_RECIPES: tuple[str, ...] = ("float32", "float16", "dynamic-int8", "int8")


def find_recipe(name: str) -> Recipe:
    """Returns the row of ``RECIPES`` or ``TUNED_RECIPES`` called or found by ``name``, or ``AUTO``; loads none.

    Raises:
        ConfigError: No row has that name; the message holds the nearest.

    >>> find_recipe("sparse-80-int8").tuning
    'sparse-80'
    """
    rows = {**RECIPES, **{row.name: row for row in RECIPES.values()}, **TUNED_RECIPES, AUTO.name: AUTO}
    if name not in rows:
        raise ConfigError(f"recipe {name!r} is not known.{nearest(name, rows)}")
    return rows[name]


def is_recipe(name: object) -> bool:
    """Returns whether a row that comes with the package has that name."""
    return is_plain(name) or name in TUNED_RECIPES or name == AUTO.name


def is_plain(name: object) -> bool:
    """Returns whether an untuned row that comes with the package has that name."""
    return name in _PLAIN


def is_file_name(name: object) -> bool:
    """Returns whether an artifact may be called so: a-z, 0-9 and single hyphens.

    >>> is_file_name("float-ends"), is_file_name("../int8")
    (True, False)
    """
    return isinstance(name, str) and bool(_FILE_NAME.fullmatch(name))


def asked_for(name: str) -> Recipe:
    """Returns the row that a user's ``name`` leads to; one of their own is loaded, and its code run.

    Raises:
        ConfigError: It leads to no recipe.
    """
    RECIPES.admit(name)
    return find_recipe(name)


def found_by(recipe: Recipe) -> str:
    """Returns what another process finds a recipe by: its name, or of one's own ``package.module:name``."""
    return next((name for name in RECIPES.own() if RECIPES[name].name == recipe.name), recipe.name)
