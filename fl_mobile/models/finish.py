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


def with_standardised_inputs(
    build: Callable[[], Any], mean: Sequence[float], spread: Sequence[float], task: str = CLASSIFICATION
) -> Any:
    """Returns a built model whose first layer standardises rows of features, by constants of the graph.

    Args:
        build: Returns a built model that takes standardised features.
        mean: Of every feature.
        spread: Standard deviation of every feature.
        task: Row of `fl_mobile.tasks.TASKS`, or of several heads, whose answers are then by name.

    Raises:
        ModelError: It has no one input of known shape to put the layer before.
    """
    import keras

    model = build()
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) != 1:
        raise ModelError(
            f"model '{model.name}': features can be standardised in a model with one input of known shape only:"
            ' build it from keras.Input, or set data.standardize = "none"'
        )
    raw = keras.Input(inputs[0].shape[1:], name="features")
    scale = [1 / each for each in spread]
    offset = [-m / s for m, s in zip(mean, spread, strict=True)]
    # The clip keeps the converter from folding the scales into the first kernel, whose 8-bit rows they would spoil.
    ready = keras.ops.clip(keras.layers.Rescaling(scale, offset, name=STANDARDIZE)(raw), -CLIP, CLIP)
    answer = model(keras.tree.pack_sequence_as(model.input, [ready]))
    return keras.Model(raw, by_head(model, task, answer) if task_row(task).heads else answer, name=model.name)


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


def with_ends(model: Any, ports: Sequence[Port], task: str, *, loss: str) -> Any:
    """Returns a model of several inputs or heads as a phone needs it: all by name, answers as of `with_answers`.

    Args:
        model: Of the author, or what `fl_mobile.models.ends.with_joined_ends` made of it.
        ports: Of several inputs; none where there is one.
        task: Row of `fl_mobile.tasks.TASKS`, or of several heads.
        loss: As of `with_answers`.
    """
    import keras

    joined = model if author_of(model) is not model else with_joined_ends(lambda: model, ports, task)
    author = author_of(joined)
    if task_row(task).heads:
        return with_named_ends(author, ports, task)
    probe = np.ones((2, *joined.inputs[0].shape[1:]), joined.inputs[0].dtype)
    logits = head_of(joined, probe) == "logits"
    plain = task == CLASSIFICATION and (not loss or author.outputs[0].shape[-1] != 1)
    whole = author if plain else with_answers(author, task, loss=loss, from_logits=logits)
    with names_may_differ():
        return keras.Model(by_port(author, ports), whole.outputs[0], name=author.name)
