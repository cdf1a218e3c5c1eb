"""The TFLite metadata flatbuffer, ``metadata_schema.fbs`` 1.0, as one literal table with a writer and a checked reader.

Only the tables that describe a classifier are here; fields keep the slots of the schema, so every TFLite metadata
reader (Task Library, MediaPipe, Android Studio) understands what is written, and unknown fields are skipped when read.

A table is a plain mapping from field name to value; a field that is absent is not stored.

Source: ``tensorflow_lite_support/metadata/metadata_schema.fbs``, file identifier ``M001``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from fl_mobile.errors import VerifyError

IDENTIFIER = b"M001"

# Field name -> slot and type. Types: "string", "byte", "[float]", a table's name, or "[table's name]". A union takes
# two slots, the number of its member and the member; UNIONS says which table a number stands for.
TABLES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ModelMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "version": (2, "string"),
        "subgraph_metadata": (3, "[SubGraphMetadata]"),
        "license": (5, "string"),
        "min_parser_version": (7, "string"),
    },
    "SubGraphMetadata": {
        "input_tensor_metadata": (2, "[TensorMetadata]"),
        "output_tensor_metadata": (3, "[TensorMetadata]"),
    },
    "TensorMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "content": (3, "Content"),
        "process_units": (4, "[ProcessUnit]"),
        "stats": (5, "Stats"),
        "associated_files": (6, "[AssociatedFile]"),
    },
    "Content": {"type": (0, "byte"), "content_properties": (1, "type")},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": (0, "byte")},
    "ProcessUnit": {"type": (0, "byte"), "options": (1, "type")},
    "NormalizationOptions": {"mean": (0, "[float]"), "std": (1, "[float]")},
    "Stats": {"max": (0, "[float]"), "min": (1, "[float]")},
    "AssociatedFile": {"name": (0, "string"), "description": (1, "string"), "type": (2, "byte")},
}
UNIONS: Mapping[str, Mapping[int, str]] = {
    "Content": {1: "FeatureProperties", 2: "ImageProperties"},
    "ProcessUnit": {1: "NormalizationOptions"},
}
_PARSE_ERRORS = (struct.error, IndexError, ValueError, TypeError, OverflowError)


def encode(fields: Mapping[str, Any]) -> bytes:
    """Returns the ``ModelMetadata`` table ``fields`` as a flatbuffer; the same fields give the same bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, "ModelMetadata", fields), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def decode(data: bytes) -> dict[str, Any]:
    """Returns the ``ModelMetadata`` table in ``data``, the inverse of `encode`.

    Raises:
        VerifyError: ``data`` is not such a flatbuffer. Any bytes may be given.
    """
    import flatbuffers

    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise VerifyError(f"TFLite metadata: expected {IDENTIFIER!r} at byte 4 of {len(data)}, found {data[4:8]!r}")
    try:
        root = struct.unpack_from("<I", data)[0]
        return _read(flatbuffers.table.Table(data, root), "ModelMetadata")
    except _PARSE_ERRORS as error:
        raise VerifyError(
            f"TFLite metadata of {len(data)} bytes is damaged ({type(error).__name__}: {error})"
        ) from error


def _write(builder: Any, name: str, fields: Mapping[str, Any]) -> int:
    """Writes children first: a flatbuffer is built from its end."""
    schema = TABLES[name]
    kinds = {field: _kind(name, schema[field][1], fields) for field in fields}
    values = {field: _write_value(builder, kinds[field], value) for field, value in fields.items()}
    builder.StartObject(1 + max((slot for slot, _ in schema.values()), default=-1))
    for field, value in values.items():
        slot = schema[field][0]
        if kinds[field] == "byte":
            builder.PrependInt8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())


def _kind(table: str, declared: str, fields: Mapping[str, Any]) -> str:
    """Returns the type of a field; that of a union's member follows from the number beside it."""
    return UNIONS[table][fields["type"]] if declared == "type" else declared


def _write_value(builder: Any, kind: str, value: Any) -> int:
    if kind == "byte":
        return int(value)
    if kind == "string":
        return int(builder.CreateString(value))
    if not kind.startswith("["):
        return _write(builder, kind, value)
    item = kind[1:-1]
    if item == "float":
        builder.StartVector(4, len(value), 4)
        for number in reversed(value):
            builder.PrependFloat32(number)
        return int(builder.EndVector())
    places = [_write(builder, item, each) for each in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _read(table: Any, name: str) -> dict[str, Any]:
    """Reads the fields that `TABLES` knows. Tables never contain their own kind, so the depth is bounded."""
    fields: dict[str, Any] = {}
    for field, (slot, declared) in TABLES[name].items():
        offset = table.Offset(4 + 2 * slot)
        known = declared != "type" or fields.get("type") in UNIONS[name]
        if offset and known:
            fields[field] = _read_value(table, offset, _kind(name, declared, fields))
    return fields


def _read_value(table: Any, offset: int, kind: str) -> Any:
    import flatbuffers

    place = table.Pos + offset
    if kind == "byte":
        return struct.unpack_from("<b", table.Bytes, place)[0]
    if kind == "string":
        return _span(table, place, 1).decode()
    if not kind.startswith("["):
        return _read(flatbuffers.table.Table(table.Bytes, table.Indirect(place)), kind)
    span = _span(table, place, 4)
    if kind == "[float]":
        return [number for (number,) in struct.iter_unpack("<f", span)]
    start = table.Indirect(place) + 4
    items = range(start, start + len(span), 4)
    return [_read(flatbuffers.table.Table(table.Bytes, table.Indirect(item)), kind[1:-1]) for item in items]


def _span(table: Any, place: int, width: int) -> bytes:
    """Returns the bytes of a vector or string of ``width``-byte items; its length is a claim until compared."""
    start = table.Indirect(place)
    count = struct.unpack_from("<I", table.Bytes, start)[0]
    span = bytes(table.Bytes[start + 4 : start + 4 + count * width])
    if len(span) != count * width:
        raise ValueError(f"{count} items of {width} bytes at {start} do not fit {len(table.Bytes)} bytes")
    return span
