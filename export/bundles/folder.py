"""The folder an app developer gets, whole or absent, and proof that it is still what was written.

```
bundle/
├── float32.tflite, int8.tflite …   one file per recipe
├── labels.txt                      one class per line, in output order
├── golden.npz                      a few frames and what every runtime must answer
├── report.json, report.md          what was measured, for programs and for people
├── model_card.md                   where the model comes from and what it is good for
├── manifest.json                   length and SHA-256 of every file above, and of itself
└── manifest.sig                    optional: who vouches for the manifest (``export.bundles.signing``)
```
``manifest.json`` is canonical JSON and holds the SHA-256 of itself without that field, so one flipped byte
anywhere in the folder is found. Nothing in the folder depends on the time or the place it was made: the same model,
recipes and key give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.bundles.signing import PublicKey, SigningKey, check_signature, claimed_key_id, sign
from fl_mobile.errors import ExportError, VerifyError
from fl_mobile.storage.files import write_atomic

MANIFEST, SIGNATURE_FILE = "manifest.json", "manifest.sig"
SCHEMA = 2
LAYERS = ("signature", "hash", "flatbuffer", "parity")
"""What is proven about a bundle, in this order; the first failure ends it."""
ARTIFACTS, TRAINING_PROGRAM = "inference artifacts", "training program"  # the second kind's manifest ``holds`` it

_MAX_MANIFEST_BYTES = 2**20
_MAX_SIGNATURE_BYTES = 2**12
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Trust:
    """Whom a reader of bundles believes.

    Attributes:
        key: Only bundles signed with its private half pass; None leaves signatures unchecked and says so.
        required: Refuses what no given key has signed, also when the key was forgotten.
    """

    key: PublicKey | None = None
    required: bool = False


ANYONE = Trust()


@dataclass(frozen=True)
class Signature:
    """What is known about a bundle's signature.

    Attributes:
        key_id: Whose signature it claims to be; None for an unsigned bundle.
        checked: Whether the public key of that id was given and fits. Without it ``key_id`` is only a claim.
    """

    key_id: str | None
    checked: bool

    def __str__(self) -> str:
        if self.key_id is None:
            return "NONE: unsigned, anyone could have made this bundle"
        if not self.checked:
            return f"NOT CHECKED: claims to be of key {self.key_id}, whose public key was not given"
        return f"Ed25519 of key {self.key_id} fits"


UNSIGNED = Signature(None, checked=False)


@dataclass(frozen=True)
class Bundle:
    """The checked content of a bundle folder.

    Attributes:
        path: The folder.
        files: File name → bytes whose length and SHA-256 were compared with the manifest. Load these, never the
            file again: it may have changed since.
        manifest: The manifest's fields.
        signature: Of the manifest.
    """

    path: Path
    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    signature: Signature = UNSIGNED

    def expect(self, kind: str) -> None:
        """Raises ``VerifyError`` unless the bundle holds ``ARTIFACTS`` or ``TRAINING_PROGRAM``, as wanted."""
        held = self.manifest.get("holds", ARTIFACTS)
        if held != kind:
            raise VerifyError(f"{self.path} holds {held!r}, not {kind}: `fl-mobile verify` takes both, other verbs one")


def write_bundle(
    path: Path,
    files: Mapping[str, bytes],
    about: Mapping[str, Any],
    *,
    prove: Callable[[Path], object] | None = None,
    sign_with: SigningKey | None = None,
) -> None:
    """Writes ``files``, their manifest and its signature into a new folder ``path``.

    Everything goes into a neighbour folder first, ``prove`` may look at it there, and one rename puts it in place:
    a crash, a full disk or a failed proof leaves nothing behind.

    Args:
        path: A folder that does not exist.
        files: File name → content.
        about: More manifest fields, e.g. ``versions`` and ``provenance``.
        prove: Called with the finished neighbour folder; raises to refuse it.
        sign_with: Signs the manifest; without it the bundle is unsigned.

    Raises:
        ExportError: ``path`` exists, or a file name is not plain.
        OSError: The disk refused.
    """
    refuse_existing(path)
    for name in files:
        if not _is_plain(name):
            raise ExportError(f"bundle file name {name!r} is not plain")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        for name, data in files.items():
            write_atomic(draft / name, data)
        manifest = _manifest_bytes(files, {**about, "signed_by": sign_with.public.key_id if sign_with else None})
        write_atomic(draft / MANIFEST, manifest)
        if sign_with:
            write_atomic(draft / SIGNATURE_FILE, sign(manifest, sign_with))
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


def read_bundle(path: Path, trust: Trust = ANYONE) -> Bundle:
    """Returns the files of the bundle at ``path`` after checking the signature, then each file with the manifest.

    The manifest is read once: the bytes that were signed are the bytes that are believed.

    Raises:
        VerifyError: Signed by nobody ``trust`` knows, or something is missing, extra, damaged or not plain; the message
            names the layer and the file.
    """
    if not path.is_dir():
        raise VerifyError(f"{path} is not a bundle folder")
    data = _read_plain(path / MANIFEST, _MAX_MANIFEST_BYTES)
    with layer("signature"):
        signature = _check_signature(path, data, trust)
    with layer("hash"):
        manifest = _parse_manifest(path / MANIFEST, data)
    with layer("signature"):
        _check_signer(path, manifest.get("signed_by"), signature.key_id)
    with layer("hash"):
        files = _read_files(path, manifest["files"])
    return Bundle(path, files, manifest, signature)


@contextlib.contextmanager
def layer(name: str) -> Iterator[None]:
    """Names the layer of `LAYERS` whose check failed, and those that were not reached."""
    try:
        yield
    except VerifyError as error:
        later = LAYERS[LAYERS.index(name) + 1 :]
        rest = f", {', '.join(later)} not checked" if later else ""
        error.args = (f"failed at {name}{rest}: {error}",)
        raise


def _check_signature(path: Path, manifest: bytes, trust: Trust) -> Signature:
    file = path / SIGNATURE_FILE
    if not file.exists() and not file.is_symlink():
        if trust.key or trust.required:
            raise VerifyError(f"{path} is unsigned: there is no {SIGNATURE_FILE}; if there was one, it was removed")
        return UNSIGNED
    data = _read_plain(file, _MAX_SIGNATURE_BYTES)
    try:
        claimed = claimed_key_id(data)
        if trust.key:
            check_signature(manifest, data, trust.key)
    except VerifyError as error:
        raise VerifyError(f"{file}: {error}") from error
    if trust.required and not trust.key:
        raise VerifyError(f"{file} claims to be of key {claimed}; give its public key, or the claim proves nothing")
    return Signature(claimed, checked=trust.key is not None)


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


def _check_signer(path: Path, told: Any, found: str | None) -> None:
    """Finds a signature that was removed or exchanged by somebody who left the manifest alone."""
    if told != found:
        raise VerifyError(
            f"{path / MANIFEST} says that it is signed by {told or 'nobody'}, {SIGNATURE_FILE} is by"
            f" {found or 'nobody'}: the signature was removed or exchanged"
        )


def _read_files(path: Path, listed: Mapping[str, Any]) -> dict[str, bytes]:
    present = {entry.name for entry in path.iterdir()} - {MANIFEST, SIGNATURE_FILE}
    for name in sorted(listed.keys() - present):
        raise VerifyError(f"{path / name} is missing; the manifest lists it")
    for name in sorted(present - listed.keys()):
        raise VerifyError(f"{path / name} is not in the manifest; a bundle holds nothing else")
    return {name: _read_listed(path / name, entry) for name, entry in listed.items()}


def _parse_manifest(path: Path, data: bytes) -> dict[str, Any]:
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
        raise VerifyError(
            f"{path}: expected schema {SCHEMA}, found {manifest.get('schema')!r}; it was made by another version of"
            " fl-mobile: use that one, or export again"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise VerifyError(f"{path}: 'files' must map plain file names to bytes and sha256")
    return manifest


def _is_plain(name: str) -> bool:
    return _FILE_NAME.fullmatch(name) is not None and name not in (MANIFEST, SIGNATURE_FILE)


def _is_entry(name: str, entry: Any) -> bool:
    return (
        _is_plain(name)
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
