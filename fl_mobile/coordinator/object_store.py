"""Packets and models in an object store, by a URL that fsspec reads: for people whose machines share no disk.

```
put ─▶ object store: there whole, or not at all      get ─▶ hash checked      local ─▶ hash checked, kept in a folder
```
An object's name is the SHA-256 of its bytes, under the run's name: a URL may be many runs'.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.storage.files import write_atomic

UNREACHABLE = errno.EHOSTUNREACH
"""Of an `OSError`: the object store cannot be asked now."""

ATOMIC: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}},
    "gs": {},
    "gcs": {},
    "az": {},
    "abfs": {},
    "memory": {},
}
"""Kinds of URL whose objects appear whole or not at all → options: everybody waits while one is asked, not for long."""


def blobs_at(url: str, folder: Path) -> Blobs:
    """Returns where blobs lie.

    Args:
        url: Of an object store, or ``file:///…``; empty is ``folder``.
        folder: Its name tells what lies there; of an object store, it holds what was fetched.

    Raises:
        ConfigError: The URL cannot be used.
    """
    if not url:
        return Blobs(folder)
    kind, _, rest = url.partition("://")
    if kind == "file" and rest.startswith("/"):
        return SharedFolder(Path(rest) / folder.name)
    if kind not in ATOMIC:
        known = ", ".join(f"{name}://" for name in ("file", *ATOMIC))
        raise ConfigError(f"--blobs {url}: expected a URL of a store whose objects are whole or not there: {known}")
    try:
        import fsspec

        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **ATOMIC[kind])
    except ImportError as error:
        raise ConfigError(f"--blobs {url}: {error}; for s3:// pip install 'fl-mobile[s3]'") from None
    except ValueError as error:
        raise ConfigError(f"--blobs {url}: {error}") from None
    if kind == "s3":
        fs.retries = 2  # s3fs's own, beside those of its client
    return ObjectStore(folder, url=url, fs=fs, root=root.rstrip("/"))


@dataclass(frozen=True)
class SharedFolder(Blobs):
    """A folder that several runs may share, each below its name."""

    def of_run(self, run: str) -> Blobs:
        """See `Blobs.of_run`."""
        return Blobs(self.folder.parent / run / self.folder.name)


@dataclass(frozen=True)
class ObjectStore(Blobs):
    """Blobs of one run and one kind.

    Attributes:
        folder: Holds what was fetched to be served; anything in it may be deleted at any time.
        url: As it was given, for messages.
        fs: What fsspec made of it.
        root: Its path there.
        run: Below the root.
    """

    url: str = ""
    fs: Any = field(default=None, repr=False)
    root: str = ""
    run: str = ""
    _fetching: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def of_run(self, run: str) -> Blobs:
        """See `Blobs.of_run`."""
        return replace(self, run=run)

    def put_all(self, named: Mapping[str, bytes]) -> None:
        """See `Blobs.put_all`: a store that has answered keeps what it was sent."""
        objects = {self._object(name): data for name, data in named.items()}
        with self._asked():
            self.fs.pipe(objects)

    def get(self, sha256: str) -> bytes:
        """See `Blobs.get`."""
        data = self._fetched(sha256)
        if data is None:
            raise RunError(f"{self._object(sha256)}: missing in {self.url}, though the coordinator was promised it")
        return data

    def local(self, sha256: str) -> Path | None:
        """See `Blobs.local`."""
        path = self.path(sha256)
        with self._fetching:  # a crowd that wants the same model is one fetch
            if not path.exists():
                try:
                    data = self._fetched(sha256)
                except RunError as error:  # for whoever looks after the store; clients come again
                    raise OSError(UNREACHABLE, str(error), self.url) from None
                if data is None:
                    return None
                write_atomic(path, data, sync=False)
        return path

    def missing(self, names: Collection[str]) -> list[str]:
        """See `Blobs.missing`."""
        return sorted(set(names) - self._names().keys())

    def keep_only(self, names: Collection[str]) -> None:
        """See `Blobs.keep_only`."""
        for name, found in self._names().items():
            if name not in names:
                with self._asked(), contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(found)

    def _object(self, sha256: str) -> str:
        return f"{self.root}/{self.run}/{self.folder.name}/{self.path(sha256).name}"

    def _fetched(self, sha256: str) -> bytes | None:
        wanted = self._object(sha256)
        with self._asked():
            try:
                data: bytes = self.fs.cat_file(wanted)
            except FileNotFoundError:
                return None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RunError(f"{self._object(sha256)}: damaged in {self.url}, its content has another hash")
        return data

    def _names(self) -> dict[str, str]:
        """Returns what is there: name → object."""
        with self._asked():
            try:
                found = self.fs.ls(f"{self.root}/{self.run}/{self.folder.name}", detail=False, refresh=True)
            except FileNotFoundError:  # nothing was put there yet
                return {}
        return {str(one).rpartition("/")[2]: str(one) for one in found}

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Whatever a store's own library raises is told as an `OSError` that names the store."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            told = " ".join(str(error).split())[:200]
            raise OSError(
                UNREACHABLE, f"the store cannot be asked now ({type(error).__name__}: {told})", self.url
            ) from error
