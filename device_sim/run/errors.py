"""What is kept of an error that TensorFlow raised in the middle of a round: a line for the user, all in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from device_sim.run.folder import RunFolder
from fl_mobile.errors import TrainingError
from fl_mobile.storage.files import write_atomic
from fl_mobile.table import rows_in_use

_IN_STEPS = ("loss", "optimizer")
"""Kinds of rows that run inside a training step, whose errors TensorFlow tells in its own way."""


@contextlib.contextmanager
def kept_errors(folder: RunFolder, round_num: int) -> Iterator[None]:
    """Gives a `TrainingError` inside the block its round, and writes all of its text into the run folder."""
    try:
        yield
    except TrainingError as error:
        write_atomic(folder.errors, f"round {round_num}, {error}\n\n{error.details}".encode())
        message = f"round {round_num}, {error} (the whole text: {folder.errors}){rows_in_use(_IN_STEPS)}"
        raise TrainingError(message, details=error.details) from None
