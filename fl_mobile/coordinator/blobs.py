"""Bytes on disk by their SHA-256: written once, whole or absent, and synced before anybody is told of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_mobile.errors import RunError
from fl_mobile.protocol.terms import Blob
from fl_mobile.storage.files import sync_files, write_atomic

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blobs:
    """A folder of files named by their content.

    All in one: a folder is synced after its files, and 64 packets in as many folders took eight times as long.
    """

    folder: Path

    def path(self, sha256: str) -> Path:
        """Returns where a blob lies; the name is checked before it is looked for."""
        if not _NAME.fullmatch(sha256):
            raise ValueError(f"no SHA-256: {sha256!r}")
        return self.folder / sha256

    def put(self, data: bytes) -> Blob:
        """Returns the blob, safe on disk."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.put_all({sha256: data})
        return Blob(sha256, len(data))

    def put_all(self, named: Mapping[str, bytes]) -> None:
        """Stores blobs by their SHA-256; once this returns, they outlast a loss of power.

        Raises:
            OSError: The disk refused; what was stored before is whole.
        """
        new = {self.path(name): data for name, data in named.items()}
        for path, data in new.items():
            if not path.exists():
                write_atomic(path, data, sync=False)
        sync_files(list(new))  # of those that were there too: whoever wrote them may have been killed before this

    def get(self, sha256: str) -> bytes:
        """Returns a blob.

        Raises:
            RunError: It is not there, or not what its name says.
        """
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RunError(f"{path}: missing, though the coordinator was promised it; restore it from a copy") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RunError(f"{path}: damaged, its content has another hash; restore it from a copy")
        return data

    def local(self, sha256: str) -> Path | None:
        """Returns a file of a blob, to be read from; None if there is no such blob.

        Raises:
            OSError: It cannot be told now.
        """
        path = self.path(sha256)
        return path if path.exists() else None

    def missing(self, names: Collection[str]) -> list[str]:
        """Returns which of these are not here."""
        return sorted(name for name in names if not self.path(name).exists())

    def of_run(self, run: str) -> Blobs:
        """Returns where the blobs of a run lie; a folder is one run's."""
        return self

    def keep_only(self, names: Collection[str]) -> None:
        """Deletes all other blobs: packets of steps that are made, models that nobody is sent any more."""
        for name in os.listdir(self.folder) if self.folder.exists() else ():
            if name not in names:
                (self.folder / name).unlink()
