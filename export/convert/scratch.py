"""Folders for what converters and runtimes want to read from a file, and what is said when they fill up."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

_ENOUGH_BYTES = 65_536
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[str]:
    """Yields the path of a new temporary folder, removed afterwards.

    Raises:
        OSError: Whatever was raised in the block because the folder's disk is full. TensorFlow tells of it in words
            of its own, which would pass for a fault of the model.
    """
    with tempfile.TemporaryDirectory(prefix=f"fl-mobile-{purpose}-") as folder:
        try:
            yield folder
        except Exception as error:
            check_room(error)
            raise


def check_room(error: Exception) -> None:
    """Raises the ``OSError`` of a full disk when that is what ``error`` of a library says in words of its own."""
    if os.strerror(errno.ENOSPC) in str(error):
        raise _full(errno.ENOSPC) from error


def check_scratch() -> None:
    """Writes and removes a small temporary file, for libraries whose own words for a full disk mislead.

    Raises:
        OSError: There is no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_ENOUGH_BYTES))
            file.flush()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise _full(error.errno) from error


def _full(number: int) -> OSError:
    told = f"{os.strerror(number)} for temporary files (set TMPDIR to another disk)"
    return OSError(number, told, tempfile.gettempdir())
