"""IDX files, the format of MNIST: magic, big-endian sizes, values (http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from device_sim.datasets.records import check_array_bytes
from fl_mobile.errors import DataError

_DTYPES = {0x08: ">u1", 0x0C: ">i4"}  # the two kinds MNIST and QMNIST use
_MAX_DEFLATE_RATIO = 1032  # what a deflate stream can reach at most (zlib's technical notes)


def read_idx(path: Path, *, rank: int, kind: int = 0x08) -> np.ndarray:
    """Returns the array in an IDX file, raw or gzip-compressed (told by content, not by name).

    Args:
        rank: Expected number of dimensions: 3 for images, 1 for labels.
        kind: Expected value code: ``0x08`` unsigned byte, ``0x0C`` big-endian int32.

    Raises:
        DataError: Unreadable, another magic, truncated, too long, or a declared size that cannot be true. Sizes are
            judged before memory is allocated for them.
    """
    try:
        with _open(path) as file:
            return _parse(file, path, rank, kind)
    except (OSError, EOFError, zlib.error) as error:  # gzip raises all three
        raise DataError(f"{path}: cannot be read as an IDX file: {error}. Fetch the file again.") from error


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else open(path, "rb"))


def _parse(file: BinaryIO, path: Path, rank: int, kind: int) -> np.ndarray:
    head = file.read(4 + 4 * rank)
    magic = bytes([0, 0, kind, rank])
    if head[:4] != magic:
        raise DataError(f"{path}: expected an IDX file with magic {magic.hex()}, got {head[:4].hex() or 'no bytes'}.")
    if len(head) < 4 + 4 * rank:
        raise DataError(f"{path}: truncated: expected a header of {4 + 4 * rank} bytes, got {len(head)}.")
    shape = tuple(int(size) for size in np.frombuffer(head, ">u4", offset=4))
    dtype = np.dtype(_DTYPES[kind])
    wanted = check_array_bytes(str(path), shape, dtype.itemsize)
    on_disk = os.path.getsize(path)
    possible = on_disk * _MAX_DEFLATE_RATIO if isinstance(file, gzip.GzipFile) else on_disk - len(head)
    if wanted > possible:
        raise DataError(
            f"{path}: truncated: shape {shape} needs {wanted} bytes, a file of {on_disk} bytes cannot hold them."
        )
    values = file.read(wanted + 1)
    if len(values) != wanted:
        problem = "truncated" if len(values) < wanted else "longer than it declares"
        raise DataError(f"{path}: {problem}: shape {shape} needs {wanted} bytes of values. Fetch the file again.")
    return np.frombuffer(values, dtype).reshape(shape)
