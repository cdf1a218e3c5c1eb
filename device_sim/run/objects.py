"""Python objects that a run was made with and no name leads to: known again by what they are when the run goes on."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from device_sim.run.folder import RunFolder
from fl_mobile.errors import ModelError, RunError
from fl_mobile.models.build import PYTHON, build_model
from fl_mobile.storage.files import write_json
from fl_mobile.storage.npz import read_arrays

__all__ = ["PYTHON", "builder_of", "check_objects", "identity_of", "importable_name", "keep_objects"]


def importable_name(value: Any) -> str | None:
    """Returns ``package.module:function`` where that finds the function in any process; else None.

    >>> importable_name(json.dumps), importable_name(lambda: 0)
    ('json:dumps', None)
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not inspect.isfunction(value) or module in (None, "__main__") or not name.isidentifier():
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is value else None


def builder_of(model: Any) -> Callable[..., Any]:
    """Returns what builds the model anew for every worker; a built one is copied with its weights."""
    if callable(model) and not hasattr(model, "trainable_variables"):
        return partial(build_model, model)
    if not hasattr(model, "get_config") or not getattr(model, "built", False):
        raise ModelError(f"model: expected a function, a built Keras model or a name, got {type(model).__name__}")
    return partial(build_model, partial(_copy, model.get_config(), type(model), model.get_weights()))


def _copy(config: dict[str, Any], kind: type, weights: list[np.ndarray]) -> Any:
    made: Any = kind.from_config(config)  # type: ignore[attr-defined]
    made.set_weights(weights)
    return made


def identity_of(value: Any) -> str:
    """Returns SHA-256 (hex) of a function's source, or of a Keras model's layers and weights.

    Raises:
        ModelError: It is neither.
    """
    if hasattr(value, "get_config") and hasattr(value, "get_weights"):
        digest = hashlib.sha256(json.dumps(value.get_config(), sort_keys=True, default=repr).encode())
        for array in value.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
    if not callable(value):
        raise ModelError(f"model: expected a function, a built Keras model or a name, got {type(value).__name__}")
    return hashlib.sha256(_source(value).encode()).hexdigest()


def _source(value: Any) -> str:
    value = getattr(value, "func", value)  # of functools.partial
    value = value if inspect.isfunction(value) or inspect.ismethod(value) else type(value)
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # typed at a prompt
        code = getattr(value, "__code__", None)
        return f"{getattr(code, 'co_code', b'').hex()} {getattr(code, 'co_consts', value)}"


def keep_objects(folder: RunFolder, objects: Mapping[str, str]) -> None:
    """Writes down what a run is made with."""
    if objects:
        write_json(folder.objects, dict(objects))


def check_objects(folder: RunFolder, objects: Mapping[str, str], arrays: Mapping[str, np.ndarray] | None) -> None:
    """Raises `RunError` unless a run goes on with the objects and arrays it began with; names the first other one.

    Args:
        objects: What it is → `identity_of` it.
        arrays: Examples of its clients, or None.
    """
    try:
        kept = json.loads(folder.objects.read_text(encoding="utf-8")) if folder.objects.exists() else {}
    except ValueError as error:
        raise RunError(f"{folder.objects}: damaged ({error}); restore it from a copy.") from None
    for what in sorted(kept.keys() | objects.keys()):
        if kept.get(what) != objects.get(what):
            raise RunError(f"{folder.path}: the run began with other {what} than those given; resume it with the same.")
    if arrays is not None and folder.arrays.exists():
        held = read_arrays(folder.arrays)
        if held.keys() != arrays.keys() or any(not np.array_equal(held[name], arrays[name]) for name in held):
            raise RunError(
                f"{folder.path}: the run began with other examples than those given; resume it with the same."
            )
