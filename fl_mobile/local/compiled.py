"""What the author of a Keras model compiled it with, in rows of `LOSSES` and `OPTIMIZERS`; nothing of it is ever run.

Read from the configuration that Keras saves, so that a model in memory, a ``.keras`` and an ``.h5`` file are one case.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl_mobile.local.optimizers import BETA_1, BETA_2, EPSILON

_LOSSES = {
    "sparse_categorical_crossentropy": "sparse-categorical-crossentropy",
    "categorical_crossentropy": "categorical-crossentropy",
    "binary_crossentropy": "binary-crossentropy",
    "categorical_focal_crossentropy": "categorical-focal-crossentropy",
    "binary_focal_crossentropy": "binary-focal-crossentropy",
    "mse": "mse",
    "mean_squared_error": "mse",
    "mae": "mae",
    "mean_absolute_error": "mae",
    "huber": "huber",
}
"""Keras' names, classes of it in snake case → rows of `LOSSES`."""

_ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
"""Metrics that every run has anyway."""

_OF_LOSS = {"reduction": ("sum_over_batch_size", "auto"), "delta": (1,), "axis": (-1,), "alpha": (0.25,), "gamma": (2,)}
_OF_OPTIMIZER = {
    "beta_1": (BETA_1,),
    "beta_2": (BETA_2,),
    "epsilon": (EPSILON,),
    "weight_decay": (0,),
    "decay": (0,),
    "ema_momentum": (0.99,),
}
"""Setting → what it is in our rows; any other is off there: False or None."""

_NO_SETTING = (
    "name",
    "from_logits",
    "label_smoothing",
    "fn",
    "dtype",
    "learning_rate",
    "momentum",
    "global_clipnorm",
    "jit_compile",
)


@dataclass(frozen=True)
class Compiled:
    """What a model was compiled with.

    Attributes:
        loss: Row of `LOSSES`; empty where there is none for it.
        optimizer: Row of `OPTIMIZERS`; empty where there is none for it.
        learning_rate: Of the optimizer; 0 where it is not known.
        momentum: Of row ``momentum``.
        clip_gradient_norm: Global norm of a gradient; 0 is off.
        label_smoothing: Of its loss; 0 is off.
        from_logits: What its loss takes outputs for; None if it takes them as they come.
        left: What no row has, in words.
    """

    loss: str = ""
    optimizer: str = ""
    learning_rate: float = 0.0
    momentum: float = 0.0
    clip_gradient_norm: float = 0.0
    label_smoothing: float = 0.0
    from_logits: bool | None = None
    left: tuple[str, ...] = ()


def compiled_of(model: Any) -> Compiled | None:
    """Returns what a Keras model was compiled with; None if it never was."""
    if not getattr(model, "compiled", False):
        return None
    try:
        config = model.get_compile_config() or {}
        if "optimizer" not in config and model.optimizer is not None:  # Keras loses it when it saves as .h5
            config = {**config, "optimizer": {"class_name": type(model.optimizer).__name__,
                      "module": type(model.optimizer).__module__, "config": model.optimizer.get_config()}}  # fmt: skip
    except Exception:  # it serialises the author's own objects
        config = {}
    return compiled_in(config) if config else Compiled(left=("a compile() that cannot be read",))


def compiled_in_file(path: Path) -> Compiled | None:
    """Returns what the model of a ``.keras`` or ``.h5`` file was compiled with; None if it says nothing of it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json")).get("compile_config")
        else:
            import h5py  # type: ignore[import-untyped]

            with h5py.File(path, "r") as file:
                config = json.loads(file.attrs["training_config"])
                config = {**config, "optimizer": config.get("optimizer_config")}
    except (OSError, KeyError, ValueError, AttributeError, TypeError, zipfile.BadZipFile):
        return None
    return compiled_in(config) if isinstance(config, dict) and config else None


def compiled_in(config: Mapping[str, Any]) -> Compiled:
    """Returns what a compile configuration of Keras says."""
    loss, of_loss, left = _loss(config.get("loss"))
    optimizer, values, others = _optimizer(config.get("optimizer"))
    left = [*left, *others]
    for key in ("metrics", "weighted_metrics"):
        left += [f"metric {name}" for name in _names(config.get(key)) if snake(name) not in _ACCURACIES]
    if config.get("loss_weights"):
        left.append("loss_weights")
    return Compiled(loss=loss, optimizer=optimizer, left=tuple(left), **of_loss, **values)


class _Named(NamedTuple):
    """A serialised object of Keras: its name, whether it is Keras' own, its settings."""

    name: str
    known: bool
    settings: Mapping[str, Any]


def _named(value: Any) -> _Named | None:
    """Returns what a serialised loss, optimizer or metric is; None of nothing, or of several."""
    if isinstance(value, str):
        return _Named(value, True, {})
    if not isinstance(value, Mapping) or "class_name" not in value:
        inner = list(value.values() if isinstance(value, Mapping) else value or ())
        return _named(inner[0]) if len(inner) == 1 else None
    settings, module = value.get("config"), value.get("module") or "keras"
    if value["class_name"] == "function":  # Keras' own ones are of module builtins, and so are the author's
        return _Named(str(settings), module.startswith(("keras", "builtins")), {})
    known = module.partition(".")[0] == "keras"
    return _Named(str(value["class_name"]), known, settings if isinstance(settings, Mapping) else {})


def _loss(value: Any) -> tuple[str, dict[str, Any], list[str]]:
    """Returns the row, its settings, and what is left."""
    if not value:
        return "", {}, []
    found = _named(value)
    if found is None:
        return "", {}, [f"losses of {len(value)} outputs"]
    row = _LOSSES.get(snake(found.name), "") if found.known else ""
    if not row:
        return "", {}, [f"loss {found.name}"]
    from_logits = bool(found.settings.get("from_logits", False)) if row.endswith("crossentropy") else None
    smoothing = _short(found.settings.get("label_smoothing") or 0)
    return row, {"from_logits": from_logits, "label_smoothing": smoothing}, _unusual(found.settings, _OF_LOSS)


def _optimizer(value: Any) -> tuple[str, dict[str, Any], list[str]]:
    """Returns the row, its hyper-parameters, and what is left."""
    found = _named(value)
    if found is None:
        return "", {}, []
    settings, name = found.settings, snake(found.name)
    rate, left = _rate(settings.get("learning_rate", {"adam": 1e-3, "sgd": 1e-2}.get(name)))
    momentum = _short(settings.get("momentum") or 0)
    row = {"sgd": "momentum" if momentum else "sgd", "adam": "adam"}.get(name, "") if found.known else ""
    if not row:
        told = f", learning rate {rate:g}" if rate else ""
        return "", {}, [f"optimizer {found.name}{told}"]
    clip = _short(settings.get("global_clipnorm") or 0)
    values = {"learning_rate": rate, "momentum": momentum, "clip_gradient_norm": clip}
    return row, values, [*left, *_unusual(settings, _OF_OPTIMIZER)]


def _rate(value: Any) -> tuple[float, list[str]]:
    """Returns the learning rate, of a schedule its first, and the schedule as what is left."""
    if isinstance(value, Mapping):
        settings = value.get("config") or {}
        first = settings.get("initial_learning_rate", (settings.get("values") or [0])[0])
        return _short(first), [f"learning-rate schedule {value.get('class_name')}, but for its first rate"]
    return _short(value or 0), []


def _short(value: Any) -> float:
    """Returns a float32 that Keras wrote out as a float64 as it was typed."""
    return float(str(np.float32(value))) if isinstance(value, int | float) else 0.0


def _unusual(settings: Mapping[str, Any], ours: Mapping[str, tuple[Any, ...]]) -> list[str]:
    def usual(key: str, value: Any) -> bool:
        if key in _NO_SETTING or value is None or value is False:
            return True
        near = isinstance(value, int | float)
        return any(abs(value - one) <= 1e-6 * abs(one) if near else value == one for one in ours.get(key, ()))

    return [f"{key} {value}" for key, value in settings.items() if not usual(key, value)]


def _names(value: Any) -> Iterator[str]:
    """Yields the names of metrics, however they are nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and "class_name" in value:
        found = _named(value)
        assert found is not None
        yield str(found.settings.get("fn") or found.name) if found.name == "MeanMetricWrapper" else found.name
    elif value:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _names(inner)


def snake(name: str) -> str:
    """Returns a class name as Keras calls the function.

    >>> snake("SparseCategoricalCrossentropy"), snake("MSE")
    ('sparse_categorical_crossentropy', 'mse')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
