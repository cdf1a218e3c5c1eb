"""The folder an app developer gets, whole or absent, and proof that it is still what was written.

```
bundle/
├── float32.tflite, int8.tflite …   one file per recipe
├── labels.txt                      one class per line, in output order
├── golden.npz                      a few frames and what every runtime must answer
├── report.json, report.md          what was measured, for programs and for people
└── manifest.json                   length and SHA-256 of every file above, and of itself
```
``manifest.json`` is canonical JSON and holds the SHA-256 of itself without that field, so one flipped byte
anywhere in the folder is found. It detects damage; it is not a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_mobile.errors import ExportError, VerifyError
from fl_mobile.files import write_atomic

MANIFEST = "manifest.json"
SCHEMA = 1
_MAX_MANIFEST_BYTES = 2**20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Bundle:
    """The checked content of a bundle folder.

    Attributes:
        path: The folder.
        files: File name → bytes whose length and SHA-256 were compared with the manifest. Load these, never the
            file again: it may have changed since.
        manifest: The manifest's fields.
    """

    path: Path
    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]


def write_bundle(
    path: Path, files: Mapping[str, bytes], about: Mapping[str, Any], *, prove: Callable[[Path], object] | None = None
) -> None:
    """Writes ``files`` and their manifest into a new folder ``path``.

    Everything goes into a neighbour folder first, ``prove`` may look at it there, and one rename puts it in place:
    a crash, a full disk or a failed proof leaves nothing behind.

    Args:
        path: A folder that does not exist.
        files: File name → content.
        about: More manifest fields, e.g. ``versions`` and ``provenance``.
        prove: Called with the finished neighbour folder; raises to refuse it.

    Raises:
        ExportError: ``path`` exists, or a file name is not plain.
        OSError: The disk refused.
    """
    refuse_existing(path)
    for name in files:
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise ExportError(f"bundle file name {name!r} is not plain")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        for name, data in files.items():
            write_atomic(draft / name, data)
        write_atomic(draft / MANIFEST, _manifest_bytes(files, about))
        if prove is not None:
            prove(draft)
        refuse_existing(path)
        os.rename(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def refuse_existing(path: Path) -> None:
    """Raises ``ExportError`` when something is at ``path`` already."""
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} exists already and is not overwritten. Choose another folder or remove it.")


def read_bundle(path: Path) -> Bundle:
    """Returns the files of the bundle at ``path`` after comparing each with the manifest.

    Raises:
        VerifyError: Something is missing, extra, damaged or not plain; the message names the file.
    """
    if not path.is_dir():
        raise VerifyError(f"{path} is not a bundle folder")
    manifest = _read_manifest(path / MANIFEST)
    listed: Mapping[str, Any] = manifest["files"]
    present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    for name in sorted(listed.keys() - present):
        raise VerifyError(f"{path / name} is missing; the manifest lists it")
    for name in sorted(present - listed.keys()):
        raise VerifyError(f"{path / name} is not in the manifest; a bundle holds nothing else")
    return Bundle(path, {name: _read_listed(path / name, entry) for name, entry in listed.items()}, manifest)


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Returns the one JSON text of ``value`` this package writes: sorted keys, two spaces, no NaN."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _manifest_bytes(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    entries = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
    body = {**about, "schema": SCHEMA, "files": entries}
    return canonical_json({**body, "manifest_sha256": sha256(canonical_json(body))})


def _read_manifest(path: Path) -> dict[str, Any]:
    data = _read_plain(path, _MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(data)
        if not isinstance(manifest, dict) or canonical_json(manifest) != data:
            raise ValueError("not in canonical form")
    except (ValueError, RecursionError) as error:
        raise VerifyError(f"{path} is damaged: {error}") from error
    claimed = manifest.pop("manifest_sha256", None)
    if claimed != sha256(canonical_json(manifest)):
        raise VerifyError(f"{path} is damaged: it does not have the SHA-256 it claims")
    if manifest.get("schema") != SCHEMA:
        raise VerifyError(f"{path}: expected schema {SCHEMA}, found {manifest.get('schema')!r}; use a newer fl-mobile")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise VerifyError(f"{path}: 'files' must map plain file names to bytes and sha256")
    return manifest


def _is_entry(name: str, entry: Any) -> bool:
    return (
        _FILE_NAME.fullmatch(name) is not None
        and isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and entry["bytes"] >= 0
    )


def _read_listed(path: Path, entry: Mapping[str, Any]) -> bytes:
    data = _read_plain(path, entry["bytes"])
    if len(data) != entry["bytes"]:
        raise VerifyError(f"{path}: expected {entry['bytes']} bytes, found {len(data)}")
    if sha256(data) != entry["sha256"]:
        raise VerifyError(f"{path}: expected SHA-256 {entry['sha256']}, found {sha256(data)}; the file was changed")
    return data


def _read_plain(path: Path, limit: int) -> bytes:
    """Reads a regular file of at most ``limit`` bytes; links and devices are refused."""
    if path.is_symlink() or not path.is_file():
        raise VerifyError(f"{path} is missing or not a regular file")
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise VerifyError(f"{path}: expected at most {limit} bytes, found {path.stat().st_size}")
    return data
