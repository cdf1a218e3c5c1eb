"""Puts metadata and files into a finished ``.tflite`` without touching its graph or one byte of its weights.

```
before   [root offset] TFL3 [ …everything… ]
after    [root offset] TFL3 [ new root, its vectors, metadata buffer ] [ …everything… ] [ zip: labels.txt … ]
```
All offsets inside a flatbuffer are relative, so everything moves as one block, by a multiple of 16 bytes to keep the
alignment of weights. The new root points forward at what the old one held. Packing the model anew through the generated
object API instead would lose the 16-byte alignment of its buffers, which Python's builder does not know of.

Readers of TFLite take the root from the first four bytes and ignore what follows the last table; readers of zip start
at the end of the file. Both formats are whole.

Sources: FlatBuffers "Internals"; TFLite ``schema.fbs`` (``Model``, ``Metadata``, ``Buffer``); LiteRT
``models/convert/metadata.md``; ``metadata_extractor.cc``, which takes stored zip entries only.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from fl_mobile.errors import ExportError, VerifyError

METADATA_NAME = b"TFLITE_METADATA"
_ALIGNMENT = 16
_HEADER = 8  # root offset and file identifier
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold; today's would change the bytes
_MAX_FILE_BYTES = 2**20
# Slots of schema.fbs' Model. Every other slot is an offset to something that only moves along.
_VERSION, _BUFFERS, _METADATA, _SLOTS = 0, 4, 6, 10
_PARSE_ERRORS = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, RuntimeError, struct.error)


@dataclass(frozen=True)
class Attached:
    """What was put into a ``.tflite``: the metadata flatbuffer and the files of the zip by name."""

    metadata: bytes
    files: Mapping[str, bytes]


def attach(data: bytes, metadata: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns the ``.tflite`` ``data`` with ``metadata`` inside and ``files`` appended; same input, same bytes.

    Raises:
        ExportError: It has metadata already, keeps weights outside the flatbuffer, or is of a newer schema.
    """
    if _metadata_buffer(data) is not None or _outside(data):
        raise ExportError("metadata goes into a fresh TFLite file whose weights are inside; this one is not")
    root = _u32(data, 0)
    vtable = root - _i32(data, root)
    slots = [_u16(data, vtable + 4 + 2 * slot) for slot in range((_u16(data, vtable) - 4) // 2)]
    if len(slots) > _SLOTS:
        raise ExportError(f"the TFLite schema has {len(slots)} model fields, this version knows {_SLOTS}")
    slots += [0] * (_METADATA + 1 - len(slots))
    version = _u32(data, root + slots[_VERSION]) if slots[_VERSION] else 0
    targets = {slot: _follow(data, root + at) for slot, at in enumerate(slots) if at and slot != _VERSION}
    head = _head(data=data, slots=len(slots), version=version, targets=targets, metadata=metadata)
    file = io.BytesIO(struct.pack("<I", _root_place(len(slots))) + data[4:_HEADER] + head + data[_HEADER:])
    with zipfile.ZipFile(file, mode="a") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    return file.getvalue()


def detach(data: bytes) -> Attached:
    """Returns what `attach` put into ``data``.

    Args:
        data: A flatbuffer that ``read_graph`` accepted; what follows it may be any bytes.

    Raises:
        VerifyError: There is no metadata, or the zip is missing, damaged or holds a file above 1 MiB.
    """
    try:
        metadata = _metadata_buffer(data)
    except _PARSE_ERRORS as error:
        raise VerifyError(f"the metadata table is damaged: {error}") from error
    if metadata is None:
        raise VerifyError("it holds no TFLite metadata. Export it again.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return Attached(metadata, {info.filename: _read_entry(archive, info) for info in archive.infolist()})
    except _ZIP_ERRORS as error:
        raise VerifyError(f"the files appended to it cannot be read as a zip: {error}") from error


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _MAX_FILE_BYTES:
        raise ValueError(f"{info.filename}: expected a stored entry of at most {_MAX_FILE_BYTES} bytes")
    return archive.read(info)


def _root_place(slots: int) -> int:
    """Returns where the new root table begins: after its vtable, on a multiple of 4."""
    return _HEADER + _padded(4 + 2 * slots, 4)


def _head(data: bytes, slots: int, version: int, targets: Mapping[int, int], metadata: bytes) -> bytes:
    """Returns the block between the header and everything else; its length is a multiple of 16.

    Args:
        data: The file as it was.
        slots: Fields of the model table.
        version: Its schema version.
        targets: Slot → place in ``data`` of what the field refers to.
        metadata: Content of the new buffer.
    """
    buffers = _vector(data, targets.get(_BUFFERS))
    entries = _vector(data, targets.get(_METADATA))
    root = _root_place(slots)
    fields = sorted({_VERSION, _BUFFERS, _METADATA, *targets})
    buffers_at = root + 4 + 4 * len(fields)
    entries_at = buffers_at + 4 * (2 + len(buffers))
    entry_at = entries_at + 4 * (2 + len(entries)) + 8  # each table follows its own vtable of 8 bytes
    name_at = entry_at + 12
    buffer_at = name_at + 4 + _padded(len(METADATA_NAME) + 1, 4) + 8
    bytes_at = _padded(buffer_at + 8 + 4, _ALIGNMENT)
    end = _HEADER + _padded(bytes_at + len(metadata) - _HEADER, _ALIGNMENT)
    moved = end - _HEADER
    ours = {_BUFFERS: buffers_at, _METADATA: entries_at}

    block = bytearray(end)

    def put(place: int, layout: str, *values: int) -> None:
        struct.pack_into("<" + layout, block, place, *values)

    def point(place: int, target: int) -> None:
        put(place, "I", target - place)

    places = {slot: 4 + 4 * index for index, slot in enumerate(fields)}
    put(_HEADER, f"{2 + slots}H", 4 + 2 * slots, 4 + 4 * len(fields), *(places.get(s, 0) for s in range(slots)))
    put(root, "i", root - _HEADER)
    for slot, place in places.items():
        if slot == _VERSION:
            put(root + place, "I", version)
        else:
            point(root + place, ours[slot] if slot in ours else targets[slot] + moved)
    for at, old, added in ((buffers_at, buffers, buffer_at), (entries_at, entries, entry_at)):
        put(at, "I", len(old) + 1)
        for index, target in enumerate([*(place + moved for place in old), added]):
            point(at + 4 + 4 * index, target)
    put(entry_at - 8, "4H", 8, 12, 4, 8)
    put(entry_at, "iII", 8, name_at - (entry_at + 4), len(buffers))
    put(name_at, f"I{len(METADATA_NAME)}s", len(METADATA_NAME), METADATA_NAME)  # type: ignore[arg-type]
    put(buffer_at - 8, "4H", 6, 8, 4, 0)
    put(buffer_at, "iI", 8, bytes_at - 4 - (buffer_at + 4))
    put(bytes_at - 4, "I", len(metadata))
    block[bytes_at : bytes_at + len(metadata)] = metadata
    return bytes(block[_HEADER:])


def _metadata_buffer(data: bytes) -> bytes | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == METADATA_NAME:
            buffer = model.Buffers(entry.Buffer())
            return b"" if buffer.DataIsNone() else buffer.DataAsNumpy().tobytes()
    return None


def _outside(data: bytes) -> bool:
    """Whether a buffer lies behind the flatbuffer, at a place counted from the start of the file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    return any(model.Buffers(index).Offset() > 1 for index in range(model.BuffersLength()))


def _vector(data: bytes, place: int | None) -> list[int]:
    """Returns the places that the vector of offsets at ``place`` refers to; none without a vector."""
    if place is None:
        return []
    return [_follow(data, place + 4 + 4 * index) for index in range(_u32(data, place))]


def _follow(data: bytes, place: int) -> int:
    return place + _u32(data, place)


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _u16(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<H", data, place)[0])


def _u32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _i32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<i", data, place)[0])
