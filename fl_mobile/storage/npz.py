"""Named arrays in one ``.npz`` file, written atomically and read without pickle. Every member has zip's CRC-32."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fl_mobile.storage.files import naming, write_atomic

DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, OverflowError, MemoryError),
)
"""What zipfile, zlib and NumPy's header parser raise on a damaged file."""

MOST_BYTES = 2**40
"""Of files that we wrote ourselves: what they declare is what the archive holds."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, sync: bool = True, secret: bool = False) -> None:
    """Writes the arrays; the same ones always give the same bytes.

    Args:
        sync: See `write_atomic`.
        secret: And there.

    Raises:
        OSError: The disk refused; what was at ``path`` is still there.
    """
    write_atomic(path, pack_arrays(arrays), sync=sync, secret=secret)


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> memoryview:
    """Returns the bytes of the ``.npz`` file that `write_arrays` writes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getbuffer()


@dataclass(frozen=True)
class Header:
    """What a member of the file declares, before any of its data is read.

    Attributes:
        name: Of the array, without ``.npy``.
        stored_bytes: Of its data, as the archive declares them.
        order: ``F`` for Fortran's, ``C`` otherwise.
        start: Bytes of the member before its data.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored_bytes: int
    order: Literal["C", "F"]
    start: int

    @property
    def array_bytes(self) -> int:
        """What an array of this shape takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def _any(header: Header) -> None:
    pass


def read_arrays(
    path: Path, *, most_bytes: int = MOST_BYTES, check: Callable[[Header], None] = _any
) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name; see `parse_arrays`.

    The file is read before it is parsed: zipfile takes a disk that fails for a file that is damaged, and whoever is
    told so throws a good file away.

    Raises:
        OSError: The disk refused.
        ValueError: The file is damaged; the message says how.
    """
    with naming(path):
        data = path.read_bytes()
    return parse_arrays(data, most_bytes=most_bytes, check=check)


def read_array(path: Path) -> np.ndarray:
    """Returns the array of an ``.npy`` file, mapped and not read: a header that promises more allocates nothing.

    Raises:
        OSError: The disk refused.
        ValueError: The file is damaged, or holds Python objects; the message says how.
    """
    try:
        with naming(path):
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            return array
    except DAMAGED as error:
        raise ValueError(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}") from None


def parse_arrays(
    data: bytes, *, most_bytes: int = MOST_BYTES, check: Callable[[Header], None] = _any
) -> dict[str, np.ndarray]:
    """Returns the arrays in the bytes of an ``.npz`` file by name, in its order.

    Nothing is unpickled, and nothing is allocated that the archive does not hold: an array of 128 bytes may declare
    terabytes.

    Args:
        most_bytes: All arrays together may declare so many.
        check: Is given every header, in order, before any data is read; raises what its caller wants raised.

    Raises:
        ValueError: The bytes are damaged or no such file; the message says how.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > most_bytes:
                raise ValueError(f"it declares {declared} bytes, more than the {most_bytes} that are read")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("two of its arrays have the same name")
            headers = [_header(archive, member) for member in members]
            for header in headers:
                check(header)
            return {
                header.name: _array(archive, member, header) for member, header in zip(members, headers, strict=True)
            }
    except DAMAGED as error:
        raise ValueError(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}") from None


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    name = member.filename.removesuffix(".npy")
    if name == member.filename or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{member.filename}': expected a .npy array, stored or deflated")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
        if version not in _READERS:
            raise ValueError(f"'{name}' is in .npy format {version}, expected 1.0 or 2.0")
        shape, fortran, dtype = _READERS[version](file)  # type: ignore[arg-type]
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds Python objects, which are never loaded; store plain numbers")
    header = Header(name, shape, dtype, member.file_size - start, order="F" if fortran else "C", start=start)
    if any(size < 0 for size in shape) or header.array_bytes != header.stored_bytes:
        raise ValueError(
            f"'{name}' declares {list(shape)} {dtype}, {header.array_bytes} bytes, but holds {header.stored_bytes}"
        )
    return header


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: Header) -> np.ndarray:
    data = bytearray(archive.read(member))  # to the end, so that zip's checksum is looked at; not read-only
    if len(data) != header.start + header.stored_bytes:
        raise ValueError(
            f"'{header.name}': expected {header.stored_bytes} bytes of data, got {len(data) - header.start}"
        )
    values = np.frombuffer(data, header.dtype, math.prod(header.shape), offset=header.start)
    return values.reshape(header.shape, order=header.order)
