"""One function that builds any model, from the table or from the user's own code, the same way every time."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError, ModelError, nearest
from fl_mobile.models.heads import check_answers
from fl_mobile.models.private_api import restart_automatic_names
from fl_mobile.models.table import MODELS, ModelRow
from fl_mobile.seeds import seed_for
from fl_mobile.table import told_with_place, working_directory_first
from fl_mobile.tasks.table import CLASSIFICATION

PYTHON = "python"
"""Name of a model that is an object of the program that made a run: no table has it."""


def build_model(
    name: str | Callable[..., Any],
    *,
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]],
    num_classes: int | Mapping[str, int],
    input_scale: float | Mapping[str, float],
    seed: int,
    weights: str | None = None,
    task: str = CLASSIFICATION,
) -> Any:
    """Returns a built ``keras.Model``; equal arguments give equal weights and variable paths in every process.

    Args:
        name: A row of `MODELS`, or ``package.module:function``, looked for in the working directory too, or a function.
            The function gets those of this function's keyword arguments that it accepts.
        input_shape: Of one example, e.g. ``(28, 28, 1)``; the caller casts raw pixels to float32. Of several inputs a
            mapping by name, and so is the scale; of several heads the number of outputs is.
        input_scale: What the first layer multiplies by: 1/255 for raw pixels, 1 for features and tokens.
        num_classes: How many outputs an example, or a position of it, has: classes, tags or numbers.
        task: Row of `fl_mobile.tasks.TASKS`; of classification the width of the model is looked at here.
        weights: ``"none"``, ``"imagenet"`` or a file (see `fl_mobile.models.weights`); None is the row's default.

    Raises:
        ConfigError: Unknown name.
        ModelError: It cannot be built for these inputs, is not a built Keras 3 model, or its weights cannot be had.
    """
    if name == PYTHON:
        raise ModelError(
            "the model is a Python object of the program that made this run: go on there, with"
            " device_sim.simulate(model, …, out=FOLDER, resume=True)."
        )
    if isinstance(name, str) and ":" not in name and name not in MODELS:
        raise ConfigError(f"unknown model '{name}'.{nearest(name, MODELS)} Your own is package.module:function.")
    given = {
        "input_shape": dict(input_shape) if isinstance(input_shape, Mapping) else tuple(input_shape),
        "num_classes": num_classes,
        "input_scale": input_scale,
        "seed": seed,
        "weights": weights,
    }
    told = name if isinstance(name, str) else getattr(name, "__qualname__", "function")
    with _repeatable(seed_for(seed, "model", told)):
        if isinstance(name, str) and name in MODELS:
            if isinstance(input_shape, Mapping) or isinstance(num_classes, Mapping):
                raise ModelError(
                    f"model '{name}' takes one input and gives one answer, the data has several: set model.name to a"
                    " function of your own, package.module:function, that returns keras.Model({input: …}, {head: …})"
                )
            return _from_table(name, MODELS[name], given)
        return _from_user(told, None if isinstance(name, str) else name, given, task)


@contextlib.contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Makes Keras draw the same initialiser seeds and number unnamed layers from the start again.

    Keras takes the seed of every initialiser and dropout that has none from Python's `random`, so seeding that covers
    any model, the user's own and keras.applications included; its state is put back afterwards.
    """
    restart_automatic_names()  # before the seed: it may be what imports Keras, and that draws from `random`
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _from_table(name: str, row: ModelRow, given: dict[str, Any]) -> Any:
    from fl_mobile.models.weights import load_imagenet, load_weights

    module, _, function = row.build.partition(":")
    builder = getattr(importlib.import_module(module), function)
    shape, weights = given["input_shape"], given["weights"] or row.default_weights
    try:
        model = builder(shape, given["num_classes"], input_scale=given["input_scale"])
    except (ValueError, TypeError, IndexError) as error:  # what Keras raises when shapes do not fit
        raise ModelError(
            f"model '{name}' cannot be built for inputs {shape}, usually {row.input_shape}: {_first_reason(error)}"
        ) from error
    if weights == "imagenet":
        if row.application is None:
            raise ModelError(f"model '{name}' has no 'imagenet' weights. Give a file, or none.")
        load_imagenet(model, row.application, shape)
    elif weights != "none":
        load_weights(model, weights, head_may_differ=row.application is not None)
    return model


def _first_reason(error: Exception) -> str:
    """Returns the line of a Keras message that says why; around it are colour codes and the layer's arguments."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("Exception encountered")), repr(error))


def _from_user(name: str, builder: Callable[..., Any] | None, given: dict[str, Any], task: str) -> Any:
    from fl_mobile.models.weights import load_weights

    with working_directory_first():
        builder = builder or _import_function(name)
        accepted = _accepted(name, builder, given)
        try:
            model = builder(**accepted)
        except Exception as error:  # the user's own code may raise anything
            raise ModelError(f"model {name}: {told_with_place(error)}") from error
    _check_user_model(name, model, given, task)
    if given["weights"] not in (None, "none") and "weights" not in accepted:
        load_weights(model, given["weights"])
    return model


def _import_function(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    try:
        importlib.invalidate_caches()  # the file may be younger than this process
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code
        raise ModelError(
            f"model {name}: cannot import {module_name}: {type(error).__name__}: {error}. "
            f"Looked in {os.getcwd()} and the installed packages."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ModelError(
            f"model {name}: {module_name} has no function '{function_name}'.{nearest(function_name, known)}"
        )
    return function  # type: ignore[no-any-return]


def _accepted(name: str, builder: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    unknown = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    unknown = [p for p in unknown if p not in given]
    if unknown:
        raise ModelError(
            f"model {name}: its parameter '{unknown[0]}' has no default and is not one of {', '.join(given)}."
        )
    return {p.name: given[p.name] for p in parameters if p.name in given}


def _check_user_model(name: str, model: Any, given: dict[str, Any], task: str) -> None:
    import keras

    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise ModelError(f"model {name}: expected a keras.Model (Keras 3), got {kind}.")
    if model.built and not model.weights:
        raise ModelError(f"model {name}: has no weights, so there is nothing to train. Give it a layer that has some.")
    if not model.built:
        raise ModelError(f"model {name}: returned a model that is not built. Give it a keras.Input or call it once.")
    shape, classes = given["input_shape"], given["num_classes"]
    if isinstance(shape, dict) or isinstance(classes, Mapping):
        return  # `fl_mobile.models.ends` looks at each of them
    try:
        out = model(np.zeros((2, *shape), np.float32), training=False)
    except Exception as error:  # Keras and TensorFlow have no common root for "this does not fit"
        raise ModelError(f"model {name}: does not take inputs {shape}: {_first_reason(error)}") from error
    shapes = [tuple(one.shape) for one in keras.tree.flatten(out)]
    check_answers(model, shapes)
    widths = {classes, 1} if classes == 2 else {classes}  # one output is enough for two classes
    if task == CLASSIFICATION and (len(shapes[0]) != 2 or shapes[0][1] not in widths):
        raise ModelError(
            f"model {name}: expected outputs (n, {classes}) for {classes} classes, got {shapes[0]} for n=2. End it in"
            f" {'Flatten or a global pooling and ' if len(shapes[0]) > 2 else ''}Dense(num_classes)."
        )
