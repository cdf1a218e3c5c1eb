"""``.keras`` files: read with errors a person can use, written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import zipfile
from pathlib import Path
from typing import Any

from fl_mobile.errors import ModelError
from fl_mobile.files import replace_atomic


def write_model(path: Path, model: Any) -> None:
    """Saves a Keras model to ``path``; a full disk leaves what was there before."""
    replace_atomic(path, model.save)


def read_model(path: Path, *, made_by: str = "") -> Any:
    """Returns the Keras model saved at ``path``. Code inside the file (Lambda layers) is never run.

    Args:
        made_by: ``package.module:function`` that built it; imported first, so that the custom layers it registers
            with ``keras.saving.register_keras_serializable`` are known.

    Raises:
        ModelError: No such file, damaged, or made of layers that are not known here.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a model saved with model.save('….keras')")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a .keras file, or damaged. Save the model again with model.save('….keras').")
    import keras

    if ":" in made_by:
        with contextlib.suppress(ImportError):  # whether the layers are known is what loading finds out
            importlib.import_module(made_by.partition(":")[0])
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError and zipfile's own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{path}: cannot be read as a Keras model ({reason[:300]}). Custom layers must be registered with"
            " keras.saving.register_keras_serializable."
        ) from None
