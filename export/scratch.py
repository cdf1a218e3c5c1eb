"""Folders for what converters and runtimes want to read from a file, and what is said when they fill up."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator


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
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            told = f"{os.strerror(errno.ENOSPC)} for temporary files (set TMPDIR to another disk)"
            raise OSError(errno.ENOSPC, told, tempfile.gettempdir()) from error
