"""What a model wears around its own layers, so that a phone needs no Python: raw features in, answers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fl_mobile.errors import ModelError
from fl_mobile.local.losses import loss_row
from fl_mobile.models.ends import Port, author_of, by_head, by_port, names_may_differ, with_joined_ends, with_named_ends
from fl_mobile.models.heads import head_of
from fl_mobile.tasks.table import BITS, CLASSIFICATION, task_row

CLIP = 10.0
"""Standard deviations from the mean beyond which a feature tells no more."""

STANDARDIZE, ANSWER = "standardize", "answer"


def standardize_layers(ports: Sequence[Port]) -> tuple[str, ...]:
    """Returns the names of the layers that `with_standardised_inputs` puts first."""
    return tuple(f"{STANDARDIZE}_{port.name}" for port in ports if port.is_row) if ports else (STANDARDIZE,)


def with_standardised_inputs(
    build: Callable[[], Any],
    mean: Sequence[float],
    spread: Sequence[float],
    task: str = CLASSIFICATION,
    ports: Sequence[Port] = (),
) -> Any:
    """Returns a built model whose first layers standardise rows of features, by constants of the graph.

    Args:
        build: Returns a built model that takes standardised features.
        mean: Of every feature, those of several inputs end to end.
        spread: Standard deviation of every feature.
        task: Row of `fl_mobile.tasks.TASKS`, or of several heads, whose answers are then by name.
        ports: Of several inputs, which are then by name; none where there is one.

    Raises:
        ModelError: It has no one input of known shape to put the layer before, or others than ``ports``.
    """
    import keras

    model = build()
    inputs = getattr(model, "inputs", None)
    if not inputs or (len(inputs) != 1 and not ports):
        raise ModelError(
            f"model '{model.name}': features can be standardised in a model with one input of known shape only:"
            ' build it from keras.Input, or set data.standardize = "none"'
        )
    wanted = by_port(model, ports) if ports else {"features": inputs[0]}
    raw = {name: keras.Input(each.shape[1:], dtype=each.dtype, name=name) for name, each in wanted.items()}
    given, at = {id(wanted[name]): each for name, each in raw.items()}, 0
    rows = [port.name for port in ports if port.is_row] if ports else list(raw)
    for name, layer in zip(rows, standardize_layers(ports), strict=True):
        end = at + raw[name].shape[-1]
        given[id(wanted[name])] = _standardised(raw[name], mean[at:end], spread[at:end], layer)
        at = end
    answer = model(keras.tree.map_structure(lambda tensor: given[id(tensor)], model.input))
    with names_may_differ():
        return keras.Model(
            raw if ports else raw["features"],
            by_head(model, task, answer) if task_row(task).heads else answer,
            name=model.name,
        )


def _standardised(raw: Any, mean: Sequence[float], spread: Sequence[float], name: str) -> Any:
    import keras

    scale = [1 / each for each in spread]
    offset = [-m / s for m, s in zip(mean, spread, strict=True)]
    # The clip keeps the converter from folding the scales into the first kernel, whose 8-bit rows they would spoil.
    return keras.ops.clip(keras.layers.Rescaling(scale, offset, name=name)(raw), -CLIP, CLIP)


def with_answers(
    model: Any, task: str, *, loss: str, from_logits: bool, mean: Sequence[float] = (), spread: Sequence[float] = ()
) -> Any:
    """Returns a model that answers as a phone needs it: probabilities for logits, numbers in their own units.

    What a distance (mse, mae, huber) pulled to 0 and 1, tags or a lone output for two classes, is no logit: it is cut
    off there and is the probability itself. Any other classifier stays as it is: export finishes its head. So does a
    subclassed model, which has no known end.

    Args:
        model: A built Keras model.
        task: Row of `fl_mobile.tasks.TASKS`.
        loss: Row of `fl_mobile.local.losses.LOSSES` it was trained with; empty where that is not known.
        from_logits: Whether its outputs are logits.
        mean: Of the numbers that are told, where they were standardised.
        spread: Their standard deviation.
    """
    import keras

    row = task_row(task)
    if not getattr(model, "outputs", None):
        return model
    two_sided = row.kind == BITS or (task == CLASSIFICATION and model.outputs[0].shape[-1] == 1)
    if two_sided and from_logits and loss and not loss_row(loss).reads_logits:
        last = keras.layers.ReLU(max_value=1.0, name=ANSWER)
    elif task == CLASSIFICATION:
        return model
    elif len(spread):
        last = keras.layers.Rescaling(list(spread), list(mean), name=ANSWER)
    elif row.activation and from_logits:
        last = keras.layers.Activation(row.activation, name=ANSWER)
    else:
        return model
    return keras.Model(model.inputs, last(model.outputs[0]), name=model.name)


def with_ends(
    model: Any,
    ports: Sequence[Port],
    task: str,
    *,
    loss: str,
    mean: Sequence[float] = (),
    spread: Sequence[float] = (),
) -> Any:
    """Returns a model of several inputs or heads as a phone needs it: all by name, answers as of `with_answers`.

    Args:
        model: Of the author, or what `fl_mobile.models.ends.with_joined_ends` made of it.
        ports: Of several inputs; none where there is one.
        task: Row of `fl_mobile.tasks.TASKS`, or of several heads.
        loss: As of `with_answers`, and so are ``mean`` and ``spread``.
    """
    import keras

    joined = model if author_of(model) is not model else with_joined_ends(lambda: model, ports, task)
    author = author_of(joined)
    if task_row(task).heads:
        return with_named_ends(author, ports, task)
    probe = np.ones((2, *joined.inputs[0].shape[1:]), joined.inputs[0].dtype)
    logits = head_of(joined, probe) == "logits"
    plain = task == CLASSIFICATION and (not loss or author.outputs[0].shape[-1] != 1)
    whole = author if plain else with_answers(author, task, loss=loss, from_logits=logits, mean=mean, spread=spread)
    with names_may_differ():
        return keras.Model(by_port(author, ports), whole.outputs[0], name=author.name)
