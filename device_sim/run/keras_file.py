"""``.keras`` files: read with errors a person can use, written whole or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.federation.federation import build_of, open_dataset
from fl_mobile.errors import ModelError
from fl_mobile.storage.files import replace_atomic


def write_model(path: Path, model: Any) -> None:
    """Saves a Keras model to ``path``; a full disk leaves what was there before."""
    replace_atomic(path, model.save)


def read_model(path: Path) -> Any:
    """Returns the Keras model saved at ``path``. Code inside the file (Lambda layers) is never run.

    Raises:
        ModelError: No such file, damaged, or made of layers that are not known here.
    """
    _check_file(path)
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError and zipfile's own
        raise ModelError(
            f"{path}: cannot be read as a Keras model ({_first_line(error)}). Custom layers must be registered with"
            " keras.saving.register_keras_serializable."
        ) from None


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
        model.load_weights(path)
    except Exception as error:  # as above
        raise ModelError(f"{path}: does not fit what {experiment.model.name} builds ({_first_line(error)})") from None
    return model


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a model saved with model.save('….keras')")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a .keras file, or damaged. Save the model again with model.save('….keras').")


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
