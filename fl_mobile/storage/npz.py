"""Named arrays in one ``.npz`` file, written atomically and read without pickle. Every member has zip's CRC-32."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fl_mobile.storage.files import naming, write_atomic

DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, OverflowError, MemoryError),
)
"""What zipfile, zlib and NumPy's header parser raise on a damaged file."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, sync: bool = True) -> None:
    """Writes the arrays; the same ones always give the same bytes.

    Args:
        sync: See `write_atomic`.

    Raises:
        OSError: The disk refused; what was at ``path`` is still there.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getbuffer(), sync=sync)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name.

    The file is read before it is parsed: zipfile and NumPy take a disk that fails for a file that is damaged, and
    whoever is told so throws a good file away.

    Raises:
        OSError: The disk refused.
        ValueError: The file is damaged; the message says how.
    """
    with naming(path):
        data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
