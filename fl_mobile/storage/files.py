"""Files that are either whole or absent: every write goes to a neighbour, is synced, then renamed.

Neighbours are called ``.<stem>.<pid>.tmp<suffix>``. Only a process that was killed leaves one behind; whoever owns the
folder clears them away when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")


_AT_ONCE = 8
"""A disk commits so many files in little more time than one."""


def write_atomic(path: Path, data: bytes | memoryview, *, sync: bool = True, secret: bool = False) -> None:
    """Writes ``data`` to ``path`` so that a crash or full disk leaves the old file or the new one, never half.

    Args:
        sync: Off for a file that may be gone after a loss of power until `sync_files` has been called for it.
        secret: Whether only the file's owner may read it, from its first byte on.

    Raises:
        OSError: The disk refused; the temporary file is removed and ``path`` is untouched.
    """

    def write(tmp: Path) -> None:
        if secret:
            tmp.touch(mode=0o600)
        tmp.write_bytes(data)

    replace_atomic(path, write, sync=sync)


def replace_atomic(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Calls ``write(temporary path)`` for libraries that insist on writing files themselves, then swaps it in.

    The temporary name keeps the suffix of ``path`` because Keras chooses its format by it.
    """
    with naming(path):
        _make_folder(path.parent)
        tmp = temporary(path)
        try:
            write(tmp)
            if sync:
                _sync(tmp)
            os.replace(tmp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                tmp.unlink()
            raise
        if sync:
            _sync(path.parent)


def sync_files(paths: Sequence[Path]) -> None:
    """Makes files written with ``sync=False`` outlast a loss of power; many take little longer than one.

    Raises:
        OSError: The disk refused.
    """
    if len(paths) <= _AT_ONCE:
        for path in paths:
            _sync(path)
    else:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_sync, paths))
    for folder in dict.fromkeys(path.parent for path in paths):
        _sync(folder)


def temporary(path: Path) -> Path:
    """Returns the neighbour that is written in place of ``path``, a file or a folder, and then renamed to it."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


def is_temporary(path: Path) -> bool:
    """Returns whether `temporary` gave a file or folder its name.

    >>> is_temporary(Path("run/.checkpoint.4711.tmp.npz")), is_temporary(Path("run/.gitignore"))
    (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def clear_temporaries(folder: Path) -> None:
    """Deletes what killed processes left in ``folder`` and the folders in it; nobody else may be writing there."""
    for entry in list(os.scandir(folder)):
        path = Path(entry)
        if is_temporary(path):
            shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()
        elif entry.is_dir(follow_symlinks=False):
            clear_temporaries(path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an `OSError` from inside the block the name ``path`` if it has none: a failed write does not say where."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON with sorted keys, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Appends one line and syncs it; a torn last line is possible after a crash and readers must drop it."""
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    with naming(path):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
