"""Weights of a file whose layers have other names: paired with a model's by order, shape and kind.

A notebook's layers are numbered by how often its cells ran (``dense_3``, ``dense_4``), so their names say nothing. The
n-th layer of a kind and of certain shapes is the n-th such layer of the file, and all must pair, or nothing does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.models.private_api import flatten_layers

Pairs = list[tuple[Any, Any]]
"""Keras variable and array, or HDF5 dataset that is not read yet."""

_NUMBER = re.compile(r"_\d+$")
_NOT_WEIGHTS = ("optimizer", "seed_generator", "metric")


@dataclass(frozen=True)
class FileLayer:
    """One layer of a file: its kind as Keras spells it in automatic names (``conv2d``), empty if not known."""

    kind: str
    arrays: tuple[Any, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of its arrays in order."""
        return tuple(tuple(array.shape) for array in self.arrays)


def layers_with_weights(model: Any) -> list[Any]:
    """Returns the innermost layers of ``model`` that own weights, in the order in which they were made part of it."""
    layers = flatten_layers(model, include_self=False)
    return [layer for layer in layers if layer.weights and not flatten_layers(layer, include_self=False)]


def pair_in_order(layers: Sequence[Any], found: Sequence[FileLayer]) -> Pairs | None:
    """Returns every weight of ``layers`` with its array, None when not all pair and none is left."""
    kinds = all(each.kind for each in found)
    theirs: dict[tuple[str, Any], list[tuple[Any, ...]]] = defaultdict(list)
    pairs: Pairs = []
    for each in found:
        theirs[each.kind if kinds else "", each.shapes].append(each.arrays)
    for layer in layers:
        shapes = tuple(tuple(weight.shape) for weight in layer.weights)
        candidates = theirs[_kind_of(layer) if kinds else "", shapes]
        if not candidates:
            return None
        pairs += zip(layer.weights, candidates.pop(0), strict=True)
    return None if any(theirs.values()) else pairs


def layers_of_hdf5(file: Any) -> list[FileLayer]:
    """Returns the layers with weights of an HDF5 file of Keras 2 or 3; those of one kind in the model's order."""
    import h5py  # type: ignore[import-untyped]

    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        return _of_keras_2(root)
    groups: list[tuple[str, Any]] = []

    def visit(name: str, item: Any) -> None:
        skipped = any(word in name for word in _NOT_WEIGHTS)
        if name.endswith("/vars") and isinstance(item, h5py.Group) and len(item) and not skipped:
            groups.append((name.removesuffix("/vars"), item))

    file.visititems(visit)
    groups.sort(key=lambda group: [_natural(part) for part in group[0].split("/")])
    return [FileLayer(_kind_in(path), tuple(group[key] for key in sorted(group, key=int))) for path, group in groups]


def pairs_of_saved_model(model: Any, folder: Path) -> Pairs | None:
    """Returns the weights of ``model`` with those in a SavedModel's checkpoint, None when they do not pair."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    stored = [name for name in reader.get_variable_to_shape_map() if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    arrays = {name.split("/.ATTRIBUTES")[0]: reader.get_tensor(name) for name in stored if "optimizer" not in name}
    arrays = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    layers: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in arrays.items():
        layer, _, variable = name.rpartition("/")
        layers[layer][variable] = array
    if all(layer.startswith("layer_with_weights-") for layer in layers):  # Keras 2 names variables by layer
        ordered = [layers[name] for name in sorted(layers, key=_natural)]
        inner = layers_with_weights(model)
        if len(inner) != len(ordered):
            return None
        pairs = [(w, part.get(w.name)) for layer, part in zip(inner, ordered, strict=True) for w in layer.weights]
        return pairs if _fit(pairs) else None
    own = [v for v in model.weights if "float" in str(v.dtype)]
    numbered = sorted((name for name in arrays if name.startswith("variables/")), key=_natural)  # Keras 3 lists them
    if len(numbered) != len(own):
        return None
    pairs = [(weight, arrays[name]) for weight, name in zip(own, numbered, strict=True)]
    return pairs if _fit(pairs) else None


def _fit(pairs: Pairs) -> bool:
    return all(array is not None and tuple(array.shape) == tuple(weight.shape) for weight, array in pairs)


def _of_keras_2(root: Any) -> list[FileLayer]:
    found = []
    for name in map(_text, root.attrs["layer_names"]):
        arrays = tuple(root[name][weight] for weight in map(_text, root[name].attrs["weight_names"]))
        if arrays:
            found.append(FileLayer(_NUMBER.sub("", name), arrays))
    # Names that the author gave are no kinds; then shapes and order must do.
    known = all(each.kind in _KINDS for each in found)
    return found if known else [FileLayer("", each.arrays) for each in found]


_KINDS = frozenset(
    {"dense", "conv1d", "conv2d", "conv3d", "conv2d_transpose", "depthwise_conv2d", "separable_conv2d", "embedding"}
    | {"batch_normalization", "layer_normalization", "normalization", "p_re_lu", "conv1d_transpose"}
)


def _kind_of(layer: Any) -> str:
    """Returns Keras' automatic name of a layer of this class, without number."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def _kind_in(path: str) -> str:
    """Returns the kind of a layer of a Keras 3 file, which names groups by kind and number."""
    *above, last = [_NUMBER.sub("", part) for part in path.split("/")]
    return f"{above[-1]}_cell" if last == "cell" and above else last


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
