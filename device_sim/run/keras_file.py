"""Keras model files: read with errors a person can use, written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.federation.dealing import open_dataset
from device_sim.federation.federation import build_of
from fl_mobile.errors import ModelError
from fl_mobile.models.ends import author_of
from fl_mobile.storage.files import replace_atomic

HDF5_SUFFIXES = (".h5", ".hdf5")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def write_model(path: Path, model: Any) -> None:
    """Saves a Keras model to ``path``; a full disk leaves what was there before."""
    replace_atomic(path, model.save)


def read_model(path: Path, imports: Sequence[str] = ()) -> Any:
    """Returns the Keras model saved at ``path``. Code inside the file (Lambda layers) is never run.

    Args:
        path: A ``.keras`` file, or ``.h5`` of Keras 2 or 3.
        imports: Modules of the user's own layers, looked for in the working directory too. Only they are run.

    Raises:
        ModelError: No such file, damaged, or made of layers that are not known here.
    """
    _check_file(path)
    with _own_modules(imports) as known:
        import keras

        import fl_mobile.models.cifg  # noqa: F401 - the layers of a row of the table, by name

        try:
            return keras.saving.load_model(path, compile=False, custom_objects=known)
        except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError and zipfile's own
            reason = last_reason(error)
            raise ModelError(f"{path}: cannot be read as a Keras model ({reason}). {_remedy(path, reason)}") from None


def read_run_model(path: Path, experiment: Experiment) -> Any:
    """Returns the model a run saved at ``path``; the user's own function builds it again, so it may be of any class.

    Raises:
        ModelError: No such file, damaged, or not what the function builds.
    """
    if ":" not in experiment.model.name:
        return read_model(path)
    _check_file(path)
    model = build_of(experiment, open_dataset(experiment))()
    try:
        author_of(model).load_weights(path)
    except Exception as error:  # as above
        raise ModelError(f"{path}: does not fit what {experiment.model.name} builds ({last_reason(error)})") from None
    return model


def last_reason(error: Exception) -> str:
    """Returns what a Keras error says in the end: around it stand other errors and whole configurations.

    >>> last_reason(ValueError("Error when deserializing class 'A' using config={}.\\n\\nException encountered: No b."))
    'No b.'
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    text = text.rpartition("Exception encountered:")[2]
    text = re.split(r"\s*(?:Full object config|Arguments received by|config=)", text)[0]
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _own_modules(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the classes and functions of the modules called ``names``, by the names Keras looks for."""
    before = list(sys.path)
    if names:
        sys.path.insert(0, os.getcwd())
    try:
        known: dict[str, Any] = {}
        for name in names:
            try:
                importlib.invalidate_caches()
                module = importlib.import_module(name)
            except Exception as error:  # importing runs the user's code
                raise ModelError(
                    f"--import {name}: {type(error).__name__}: {error}. Looked in {os.getcwd()} and the installed"
                    " packages."
                ) from None
            for key, value in vars(module).items():
                if inspect.isclass(value) or inspect.isfunction(value):
                    known[key] = known[f"Custom>{key}"] = known[f"{name}>{key}"] = value
        yield known
    finally:
        sys.path[:] = before


def _remedy(path: Path, reason: str) -> str:
    if "Lambda" in reason:
        return (
            "A Lambda layer holds Python code, and code out of a file is never run: give the function that builds the"
            f" model (package.module:function) with --set model.weights={path}."
        )
    version = _keras_version(path)
    if version.startswith("2."):
        return f"It was saved by Keras {version} (tf_keras): save it there as .h5, which Keras 3 reads."
    if "No model config" in reason or "model_config" in reason:
        return f"It holds weights alone: name the model that they are of, with --set model.weights={path}."
    return (
        "Layers of your own: name the module that defines them with --import MODULE, or register them with"
        " keras.saving.register_keras_serializable."
    )


def _keras_version(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError):
        return ""


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ModelError(f"{path}: a folder that is no run. Give a .keras or .h5 file, or the folder of a run.")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a model saved with model.save('….keras')")
    with open(path, "rb") as file:
        hdf5 = file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    if path.suffix in HDF5_SUFFIXES:
        if not hdf5:
            raise ModelError(f"{path}: not an HDF5 file, or damaged. Save the model again.")
    elif hdf5:
        raise ModelError(f"{path}: an HDF5 file. Call it {path.with_suffix('.h5').name}, then it can be read.")
    elif not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a .keras file, or damaged. Save the model again with model.save('….keras').")
