"""Which layer is to blame where a program and Keras differ: found by converting the model's beginnings alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.training.options import Options
from export.training.proof.answers import TOLERANCE, WEIGHT, Difference, norm
from export.training.proof.cases import Case
from export.training.proof.reference import inputs_of, unchanged
from fl_mobile.errors import ExportError
from fl_mobile.models import keras_bridge

ASK = "Replace this layer, or train it on engine keras; please report it with the model"


def culprit_of(model: Any, options: Options, case: Case, apart: Sequence[Difference]) -> str:
    """Returns one line: the layer, what differs most, and what to do.

    Args:
        model: The Keras model.
        options: Of its program.
        case: Where they differ.
        apart: What differs.
    """
    worst = max(apart, key=lambda d: d.off / d.allowed)
    layer = _first_wrong_layer(model, options) if any(d.name in ("infer", "loss of evaluate") for d in apart) else None
    if layer is None:
        layer = _last_wrong_tensor(model, apart)
    where = f"layer '{layer}': the" if layer else f"model '{model.name}': the"
    told = "; ".join(str(d) for d in sorted({worst, apart[0]}, key=lambda d: d.name))
    return f"{where} training program does not do what Keras does ({case.name}: {told}). {ASK}."


def _last_wrong_tensor(model: Any, apart: Sequence[Difference]) -> str | None:
    """Returns the layer nearest to the output whose step differs: gradients go wrong from there to the input."""
    wrong = {d.name.removeprefix(WEIGHT) for d in apart if d.name.startswith(WEIGHT)}
    paths = [v.path for v in keras_bridge.travelling_variables(model) if v.path in wrong]
    return layer_of(model, paths[-1]) if paths else None


def layer_of(model: Any, path: str) -> str:
    """Returns the layer a variable's path names, without the model's own name.

    >>> from types import SimpleNamespace
    >>> layer_of(SimpleNamespace(name="net"), "net/lstm/lstm_cell/kernel")
    'lstm/lstm_cell'
    """
    return path.rpartition("/")[0].removeprefix(f"{model.name}/")


def _first_wrong_layer(model: Any, options: Options) -> str | None:
    """Returns the first layer behind which the program's numbers are not Keras', by halving; None if all are right."""
    import keras

    layers = list(getattr(model, "layers", ()))
    layers = [layer for layer in layers if type(layer).__name__ != "InputLayer"]
    low, high, found = 0, len(layers) - 1, None
    while low <= high:
        middle = (low + high) // 2
        try:
            part = keras.Model(model.inputs[0], layers[middle].output)
            right = _infers_right(part, options)
        except (ValueError, AttributeError, TypeError):  # not a layer with one place in the graph
            return found
        if right:
            low = middle + 1
        else:
            found, high = layers[middle].name, middle - 1
    return found


def _infers_right(part: Any, options: Options) -> bool:
    """Returns whether a beginning of a model, converted alone, answers as Keras does."""
    from export.training.module import infer_alone

    rng = np.random.default_rng(0)
    shape = (options.batch_size, *options.input_shape)
    tokens = inputs_of(part).get("tokens", 0 if options.input_dtype == "float32" else 2)
    x = (rng.integers(0, tokens, shape) if tokens else rng.standard_normal(shape)).astype(options.input_dtype)
    with unchanged(part):
        for variable in part.variables:  # zeros, as biases start, would hide what is wrong
            if "float" in str(variable.dtype):
                noise = rng.uniform(0.1, 0.5, variable.shape)
                variable.assign(np.asarray(variable.numpy() + noise, np.float32))
        want = np.asarray(part(x.astype(np.float32) if options.input_dtype == "uint8" else x, training=False))
        try:
            got = infer_alone(part, options, x)
        except ExportError:
            return False
    return norm(got - want) <= 10 * TOLERANCE * max(norm(want), 1e-6)
