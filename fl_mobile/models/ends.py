"""Models with several inputs or outputs as the pipeline carries them: one row of numbers in, one row out.

```
float32[n, all inputs] ─▶ cut, shaped, cast ─▶ the author's model ─▶ every head's answer ─▶ float32[n, all answers]
```
The author's own model lies inside, unchanged: it is what a run writes and what is exported (`author_of`).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.errors import ModelError
from fl_mobile.local.losses import loss_row
from fl_mobile.models.heads import head_of
from fl_mobile.tasks.heads import Head, heads_of
from fl_mobile.tasks.table import CLASSES, task_row

JOINED = "joined_inputs"
_LEAST = 1e-7
"""What Keras' cross-entropies keep probabilities above."""


@dataclass(frozen=True)
class Port:
    """One of several inputs.

    Attributes:
        name: The key of its data, and of the model's input.
        shape: Of one example.
        dtype: ``"uint8"`` pixels, ``"int32"`` tokens or ``"float32"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def text(self) -> str:
        """How a contract and a summary spell it.

        >>> Port("photo", (8, 8, 1), "uint8").text
        'photo:uint8:8x8x1'
        """
        return f"{self.name}:{self.dtype}:{'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        """How many numbers of a joined row are its own."""
        return math.prod(self.shape)

    @property
    def is_row(self) -> bool:
        """Whether it is a row of numbers, as of a table: those can be standardised."""
        return self.dtype == "float32" and len(self.shape) == 1


def port_of(text: str) -> Port:
    """Returns the input that a `Port.text` spells."""
    name, dtype, shape = text.split(":")
    return Port(name, tuple(map(int, shape.split("x"))), dtype)


def inputs_of_rows(ports: Sequence[Port], x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns each input's part of joined rows ``float32[n, numbers]``, in its own shape and type."""
    ends = np.cumsum([port.size for port in ports]).tolist()
    return {
        port.name: x[:, end - port.size : end].reshape(len(x), *port.shape).astype(port.dtype)
        for port, end in zip(ports, ends, strict=True)
    }


def with_joined_ends(build: Callable[[], Any], ports: Sequence[Port], task: str) -> Any:
    """Returns a built model of one input and one output around the one that ``build`` returns.

    Probabilities of heads whose loss is a cross-entropy become logits; a head that answers logits is left alone.

    Args:
        build: Returns a built Keras model whose inputs and outputs are a dictionary, or a list.
        ports: Of several inputs; none where the model has one.
        task: Row of `fl_mobile.tasks.TASKS`, or of several heads.

    Raises:
        ModelError: It has other inputs or outputs.
    """
    import keras

    model = build()
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"model '{model.name}' has no known inputs: build one with several inputs or heads from keras.Input,"
            " keras.Model({name: input, …}, {name: output, …})"
        )
    raw, given = _cut(model, ports)
    answer = model(given)
    heads = heads_of(task)
    if not heads:
        return keras.Model(raw, answer, name=model.name)
    outputs = by_head(model, task, answer)
    flat = [_flat(model, raw, head, outputs[head.name]) for head in heads]
    joined = flat[0] if len(flat) == 1 else keras.ops.concatenate(flat, axis=1)
    return keras.Model(raw, joined, name=model.name)


def with_named_ends(model: Any, ports: Sequence[Port], task: str) -> Any:
    """Returns an author's model as a phone needs it: inputs and heads by name, probabilities for logits.

    Args:
        model: As `with_joined_ends` takes it.
        ports: And there.
        task: Of several heads.
    """
    import keras

    raw, given = _cut(model, ports)
    inner, outputs, finished = by_head(model, task, model(given)), by_head(model, task, model.output), {}
    for head in heads_of(task):
        finish = ""
        if loss_row(head.loss).reads_logits and _kind(raw, inner[head.name]) == "logits":
            lone = task_row(head.task).kind == CLASSES and head.answer[-1] == 1
            finish = "sigmoid" if lone else task_row(head.task).activation
        out = outputs[head.name]
        finished[head.name] = keras.layers.Activation(finish or "linear", name=head.name)(out)
    with names_may_differ():
        return keras.Model(by_port(model, ports) if ports else model.inputs, finished, name=model.name)


@contextlib.contextmanager
def names_may_differ() -> Iterator[None]:
    """Lets a dictionary of inputs have other keys than its author's ``Input`` layers have names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)
        yield


def author_of(model: Any) -> Any:
    """Returns the model inside of one that `with_joined_ends` made; any other as it is."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) == 1 and inputs[0].name.startswith(JOINED):
        return next(layer for layer in model.layers if hasattr(layer, "layers"))
    return model


def by_head(model: Any, task: str, answer: Any) -> dict[str, Any]:
    """Returns what an author's model answered, by head."""
    names = [head.name for head in heads_of(task)]
    return _paired(model, "output", answer, names, list(model.output_names))


def by_port(model: Any, ports: Sequence[Port]) -> dict[str, Any]:
    """Returns the input tensors of an author's model by name."""
    names = [tensor.name for tensor in model.inputs]
    return _paired(model, "input", model.input, [port.name for port in ports], names)


def _cut(model: Any, ports: Sequence[Port]) -> tuple[Any, Any]:
    """Returns the joined input, and what the model is called with."""
    import keras

    if not ports:
        if len(model.inputs) != 1:
            raise ModelError(f"model '{model.name}' has {len(model.inputs)} inputs, the data has one")
        first = model.inputs[0]
        raw = keras.Input(first.shape[1:], dtype=first.dtype, name=JOINED)
        return raw, keras.tree.pack_sequence_as(model.input, [raw])
    wanted = by_port(model, ports)
    raw = keras.Input((sum(port.size for port in ports),), name=JOINED)
    parts, at = {}, 0
    for port in ports:
        tensor = wanted[port.name]
        if tuple(tensor.shape[1:]) != port.shape:
            raise ModelError(
                f"model '{model.name}', input '{port.name}' takes {tuple(tensor.shape[1:])} for an example, the data"
                f" has {port.shape}"
            )
        part = keras.ops.reshape(raw[:, at : at + port.size], (-1, *port.shape))
        parts[id(tensor)] = part if tensor.dtype == "float32" else keras.ops.cast(part, tensor.dtype)
        at += port.size
    return raw, keras.tree.map_structure(lambda tensor: parts[id(tensor)], model.input)


def _paired(model: Any, kind: str, structure: Any, wanted: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Returns tensors by the data's names: by the keys of a dictionary, by their own names, else by their order."""
    import keras

    flat = keras.tree.flatten(structure)
    if isinstance(structure, Mapping) and len(structure) == len(flat):
        found = {str(key): value for key, value in structure.items()}
    elif set(names) == set(wanted):
        found = dict(zip(names, flat, strict=True))
    else:
        found = dict(zip(wanted, flat, strict=False)) if len(flat) == len(wanted) else {}
    if found.keys() != set(wanted):
        told = ", ".join(found) or f"{len(flat)} of them"
        raise ModelError(f"model '{model.name}': its {kind}s are {told}; the data has {', '.join(wanted)}")
    return found


def _flat(model: Any, raw: Any, head: Head, out: Any) -> Any:
    """Returns a head's answers as rows of numbers, probabilities as logits where its loss reads them."""
    import keras

    shape = tuple(out.shape[1:])
    if shape != head.answer:
        lone = shape == (1,) and head.task == "classification" and head.answer == (2,)
        hint = f": say {head.name}=classification:binary-crossentropy in task.heads" if lone else ""
        raise ModelError(
            f"model '{model.name}', output '{head.name}' answers (batch, {', '.join(map(str, shape))}), its task"
            f" '{head.task}' needs (batch, {', '.join(map(str, head.answer))}){hint}"
        )
    if loss_row(head.loss).reads_logits:
        kind = _kind(raw, out)
        if kind != "logits":
            out = keras.ops.clip(out, _LEAST, 1 - _LEAST)
            out = keras.ops.log(out) - (keras.ops.log(1 - out) if kind == "sigmoid" else 0.0)
    return keras.ops.reshape(out, (-1, math.prod(shape)))


def _kind(raw: Any, out: Any) -> str:
    """Returns what a head's answers are: see `head_of`."""
    import keras

    return head_of(keras.Model(raw, out), np.ones((2, *raw.shape[1:]), raw.dtype))
