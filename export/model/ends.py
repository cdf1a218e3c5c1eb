"""How a Keras model is called and what comes back: every input and output under one steady name.

- The only input is ``image`` for frames ``[height, width, channels]``, else what its author called it or ``features``.
- The only output is ``probabilities``.
- One of several inputs is what its author called it: the key of a dictionary, else the name of its ``Input``; failing
  both ``input_0``, ``input_1`` …
- One of several outputs: the key, else the name of its layer; failing both ``output_0``, ``output_1`` …

Names that Keras made up (``input_layer_3``, ``dense_7``) count as none: they count up with every model of the process,
so they would change the bytes of an artifact.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import ExportError

OUTPUT = "probabilities"
IMAGE_INPUT = "image"
# What Keras calls an input's dtype → what an artifact can be given that holds the same numbers.
_DTYPES = {
    **dict.fromkeys(("float32", "float16", "bfloat16", "float64"), "float32"),
    **dict.fromkeys(("int32", "int64", "int16", "int8", "uint16", "uint32"), "int32"),
    "uint8": "uint8",
}
_AUTOMATIC_INPUT = re.compile(r"(input_layer|keras_tensor|input)(_\d+)?$")


@dataclass(frozen=True)
class Opening:
    """Where tensors enter a model.

    Attributes:
        structure: What the model is called with, a placeholder for each tensor: one, a list or a dictionary.
        names: One per placeholder, in ``keras.tree`` order.
        shapes: The same with the batch, e.g. ``(1, 28, 28, 1)``.
        dtypes: What the model computes on, ``"float32"``, ``"int32"`` or ``"uint8"`` each.
        rows: How many rows its author built it for; None when any number will do.
    """

    structure: Any
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    rows: int | None = None


def opening_of(model: Any, batch: int | None = 1) -> Opening:
    """Returns where tensors enter ``model``, ``batch`` rows at a time; None asks for those it was built for, or one.

    Raises:
        ExportError: It is no built Keras 3 model, or an input is not a tensor of numbers and of fixed size.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise ExportError(f"expected a Keras 3 model, got {type(model).__module__}.{type(model).__name__}")
    if not model.built:
        raise ExportError(
            f"model {model.name!r} is not built, so it has no weights yet."
            " Give it an Input layer or call it on a frame."
        )
    structure = _structure_of(model)
    placeholders = keras.tree.flatten(structure)
    given = _names_in(structure, placeholders, [placeholder.name for placeholder in placeholders])
    if given is None:
        raise ExportError(f"model {model.name!r}: expected inputs in one list or dictionary, got them nested")
    for name, placeholder in zip(given, placeholders, strict=True):
        _check_input(model, name, placeholder, batch)
    built_for = next((placeholder.shape[0] for placeholder in placeholders if placeholder.shape), None)
    batch = batch or built_for or 1
    shapes = tuple((batch, *map(int, placeholder.shape[1:])) for placeholder in placeholders)
    dtypes = tuple(_DTYPES[str(placeholder.dtype)] for placeholder in placeholders)
    return Opening(
        structure=structure, names=_input_names(given, shapes, dtypes), shapes=shapes, dtypes=dtypes, rows=built_for
    )


def answers_of(model: Any, opening: Opening, tensors: Sequence[Any]) -> dict[str, Any]:
    """Returns what ``model`` answers in inference mode, by output name, in the model's order.

    Args:
        model: The model ``opening`` was made from.
        opening: Of that model.
        tensors: One per name of ``opening``.

    Raises:
        ExportError: It answers something else than one tensor, a list or a dictionary of tensors.
    """
    import keras

    answer = model(keras.tree.pack_sequence_as(opening.structure, list(tensors)), training=False)
    values = keras.tree.flatten(answer)
    if len(values) == 1:
        return {OUTPUT: values[0]}
    names = _names_in(answer, values, _layer_names(model, len(values)))
    if names is None:
        raise ExportError(f"model {model.name!r}: expected outputs in one list or dictionary, got them nested")
    return dict(zip(_steady(names, "output"), values, strict=True))


def _structure_of(model: Any) -> Any:
    """Returns what ``model`` is called with, as ``keras.KerasTensor`` placeholders."""
    import keras

    if getattr(model, "inputs", None):
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    # Subclassed: as of its first call, whose number of rows nobody asked for.
    shapes: Any = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shapes, Mapping) and all(_is_shape(shape) for shape in shapes.values()):
        return {name: keras.KerasTensor((None, *shape[1:]), name=name) for name, shape in shapes.items()}
    if _is_shape(shapes):
        return keras.KerasTensor((None, *shapes[1:]), name="input")
    if isinstance(shapes, (list, tuple)) and shapes and all(_is_shape(shape) for shape in shapes):
        return [keras.KerasTensor((None, *shape[1:]), name="input") for shape in shapes]
    raise ExportError(
        f"model {model.name!r}: its inputs are not known. A subclassed model takes one argument: a tensor, a list or a"
        " dictionary of tensors. Call it once with that."
    )


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(dim is None or isinstance(dim, int) for dim in value)
    )


def _names_in(structure: Any, leaves: Sequence[Any], otherwise: Sequence[str]) -> list[str] | None:
    """Returns the name of each leaf: its key in a dictionary, else ``otherwise``; None when they lie deeper."""
    if isinstance(structure, Mapping):
        keys = {id(value): str(key) for key, value in structure.items()}
        names = [keys.get(id(leaf), "") for leaf in leaves]
        return names if len(keys) == len(leaves) and all(names) else None
    flat = not isinstance(structure, (list, tuple)) or all(
        part is leaf for part, leaf in zip(structure, leaves, strict=False)
    )
    return list(otherwise) if flat else None


def _check_input(model: Any, name: str, placeholder: Any, batch: int | None) -> None:
    shape, dtype = tuple(placeholder.shape), str(placeholder.dtype)
    if dtype not in _DTYPES:
        raise ExportError(
            f"model {model.name!r}: expected an Input of numbers ({', '.join(_DTYPES)}), got dtype {dtype} of {name!r}"
        )
    if batch is not None and shape and shape[0] not in (None, batch):
        raise ExportError(
            f"model {model.name!r}: {name!r} was built for batches of {shape[0]}, asked for {batch}. Build it without"
            f" batch_size, or export it with that one (--batch-size {shape[0]})."
        )
    if len(shape) < 2 or any(dim is None for dim in shape[1:]):
        raise ExportError(
            f"model {model.name!r}: input shape {shape} of {name!r} is open; a phone needs a fixed size."
            " Build it with Input((height, width, channels))."
        )


def _input_names(given: Sequence[str], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> tuple[str, ...]:
    wanted = ["" if _AUTOMATIC_INPUT.match(name) else name for name in given]
    if len(given) > 1:
        return _steady(wanted, "input")
    if len(shapes[0]) == 4 and dtypes[0] != "int32":
        return (IMAGE_INPUT,)
    return (wanted[0] if wanted[0].isidentifier() else "features",)


def _layer_names(model: Any, count: int) -> list[str]:
    """Returns the names of the layers a functional model's outputs come from, empty where Keras made one up."""
    names = list(getattr(model, "output_names", ()) or [""] * count)
    operations = {operation.name: operation for operation in getattr(model, "operations", ())}
    for index, name in enumerate(names):
        made_up = re.sub(r"_\d+$", "", name).replace("_", "")
        if name in operations and made_up == type(operations[name]).__name__.lower():
            names[index] = ""
    return names


def _steady(names: Sequence[str], kind: str) -> tuple[str, ...]:
    """Returns ``names`` with ``<kind>_<position>`` for those that are none, not plain or not the only one."""
    plain = [name.isidentifier() and not keyword.iskeyword(name) and names.count(name) == 1 for name in names]
    steady = tuple(name if fine else f"{kind}_{i}" for i, (name, fine) in enumerate(zip(names, plain, strict=True)))
    return steady if len(set(steady)) == len(steady) else tuple(f"{kind}_{i}" for i in range(len(names)))
