"""Between a built Keras 3 model and `Tensors`: what travels, reading it, writing it. The only keeper of variable paths.

| variable of the model                                   | travels | trainable in the spec |
|----------------------------------------------------------|---------|-----------------------|
| weight of a layer that trains                            | yes     | yes                   |
| statistic of a layer that trains (batch-norm moving mean) | yes     | no                    |
| frozen weight (LoRA's kernel), anything in a frozen layer | no: it ships with the app   |   |
| seed state, integer counters                             | no: local to a device       |   |

Any built Keras 3 model will do: Sequential, functional, subclassed. Keras is imported by whoever made the model.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from fl_mobile.errors import ModelError, SpecMismatch
from fl_mobile.models.private_api import flatten_layers, made_untrainable
from fl_mobile.tensors import Spec, Tensors, TensorSpec


def travelling_variables(model: Any) -> list[Any]:
    """Returns the Keras variables that travel, in model order.

    Raises:
        ModelError: The model is not built, has nothing to train, or two variables share a path.
    """
    if not getattr(model, "built", False) or not model.weights:
        raise ModelError(f"model '{model.name}' is not built: give it an Input, or call it once, before federating it")
    trained, statistics = {id(v) for v in model.trainable_variables}, _statistics(model)
    chosen = [v for v in model.weights if id(v) in trained or id(v) in statistics]
    if not trained:
        raise ModelError(f"model '{model.name}' has no trainable variable: unfreeze at least its last layer")
    twice = [path for path, count in Counter(v.path for v in chosen).items() if count > 1]
    if twice:
        raise ModelError(
            f"two variables of model '{model.name}' share the path '{twice[0]}': name its layers differently"
        )
    return chosen


def _statistics(model: Any) -> set[int]:
    """Returns the identities of floats that training writes without gradients: those made untrainable, as a moving mean
    is. A weight that was frozen later, as the kernel under a LoRA pair, is none."""
    made = [v for layer in flatten_layers(model) if layer.trainable for v in made_untrainable(layer)]
    frozen = {id(v) for layer in flatten_layers(model) if not layer.trainable for v in layer.variables}
    return {id(v) for v in made if "float" in str(v.dtype) and id(v) not in frozen}


def local_variables(model: Any) -> list[Any]:
    """Returns what a device keeps to itself and starts afresh in every round: seed states, counters."""
    shared = {id(v) for v in travelling_variables(model)}
    frozen = {id(v) for layer in flatten_layers(model) if not layer.trainable for v in layer.weights}
    own = [v for v in model.variables if id(v) not in shared and id(v) not in frozen]
    return [v for v in own if "float" not in str(v.dtype)]


def spec_of(model: Any) -> Spec:
    """Returns the spec of what travels, keyed by ``variable.path``."""
    return {v.path: TensorSpec(tuple(v.shape), bool(v.trainable)) for v in travelling_variables(model)}


def read(model: Any) -> Tensors:
    """Returns copies of the travelling variables as ``float32``."""
    return {v.path: np.array(v.numpy(), np.float32) for v in travelling_variables(model)}


def write(model: Any, tensors: Tensors) -> None:
    """Sets the travelling variables of the model the tensors were read from, or of a twin built by the same function.

    A twin's paths may differ by Keras' automatic numbering (``dense`` / ``dense_3``), so tensors and variables are
    paired in model order and must agree in shape and in the variable's own name (``kernel``, ``bias`` …).

    Raises:
        SpecMismatch: They do not.
    """
    variables = travelling_variables(model)
    mine = [(v.path.rpartition("/")[2], tuple(v.shape)) for v in variables]
    theirs = [(path.rpartition("/")[2], value.shape) for path, value in tensors.items()]
    if mine != theirs:
        odd = next((f"{a} for {b}" for a, b in zip(theirs, mine, strict=False) if a != b), "")
        raise SpecMismatch(
            f"cannot write {len(theirs)} tensors into the {len(mine)} variables of model '{model.name}' {odd}:"
            " they were read from a different model"
        )
    for variable, value in zip(variables, tensors.values(), strict=True):
        variable.assign(value)
