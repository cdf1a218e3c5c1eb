"""Files that are either whole or absent: every write goes to a neighbour, is synced, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` so that a crash or full disk leaves the old file or the new one, never half.

    Raises:
        OSError: The disk refused; the temporary file is removed and ``path`` is untouched.
    """
    replace_atomic(path, lambda tmp: tmp.write_bytes(data))


def replace_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary path)`` for libraries that insist on writing files themselves, then swaps it in.

    The temporary name keeps the suffix of ``path`` because Keras chooses its format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(tmp)
        with open(tmp, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink()
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write that fails half way does not say where
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON with sorted keys, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Appends one line and syncs it; a torn last line is possible after a crash and readers must drop it."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
