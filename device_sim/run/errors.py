"""What is kept of an error that TensorFlow raised in the middle of a run: a line for the user, all in a file."""

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
def kept_errors(folder: RunFolder, when: str, *, safe: int) -> Iterator[None]:
    """Tells a `TrainingError` inside the block in one line and writes all of its text into the run folder.

    A block that ends well removes what an earlier attempt left there.

    Args:
        when: Where in the run the block is: "round 3".
        safe: Rounds that are finished, from which the run can go on.
    """
    try:
        yield
    except TrainingError as error:
        told = f"{when}, {error}"
        message = f"{told} ({_kept(folder, told, error.details)}){rows_in_use(_IN_STEPS)}"
        if safe and not folder.passing:
            message += f". {safe} finished round{'s are' * (safe > 1) or ' is'} safe: mend it, and --resume goes on"
        raise TrainingError(message, details=error.details) from None
    folder.errors.unlink(missing_ok=True)


def _kept(folder: RunFolder, told: str, details: str) -> str:
    """Returns where the whole text is, after writing it there."""
    if folder.passing:
        return "the whole text: `details` of this error; with out=FOLDER a file there"
    try:
        write_atomic(folder.errors, f"{told}\n\n{details}".encode(errors="backslashreplace"))
    except OSError as error:  # the disk may be full, which is not what failed
        return f"the whole text could not be written to {folder.errors}: {error.strerror}"
    return f"the whole text: {folder.errors}"
