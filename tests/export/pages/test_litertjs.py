"""The pinned runtime: what is not the pin is refused, and what is missing says how to get it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from export.runtimes.browser.chromium import find_chromium, missing_chromium
from export.runtimes.browser.litertjs import (
    PACKAGES,
    VERSION,
    cache_folder,
    check_integrity,
    litertjs_resources,
    missing_litertjs,
)
from fl_mobile.errors import ConfigError


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer without programs and with an empty cache; returns its program folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FL_MOBILE_CHROMIUM", raising=False)
    return programs


def program(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def some_tarball() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/dist/index.js")
        info.size = 9
        tar.addfile(info, io.BytesIO(b"export {};"))
    return file.getvalue()


def test_pins_are_whole() -> None:
    for package in PACKAGES:
        assert package.integrity.startswith("sha512-")
        assert len(package.integrity) == len("sha512-") + 88
        assert package.spec.endswith(f"@{VERSION}")
        assert package.tarball == f"litertjs-{package.name.split('/')[1]}-{VERSION}.tgz"


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fl-mobile" / f"litertjs-{VERSION}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fl-mobile" / f"litertjs-{VERSION}"


def test_without_npm_the_message_holds_both_ways_out(nothing_installed: Path) -> None:
    reason = missing_litertjs()
    assert reason is not None
    assert "apt-get install nodejs npm" in reason
    assert f"npm pack @litertjs/core@{VERSION} @litertjs/wasm-utils@{VERSION}" in reason
    assert str(cache_folder()) in reason
    with pytest.raises(ConfigError, match="npm, which fetches it, is not installed"):
        litertjs_resources()


def test_without_a_browser_the_message_says_what_to_install(
    nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "apt-get install chromium" in str(missing_chromium())
    program(nothing_installed / "chromium", "exit 0")
    assert missing_chromium() is None
    monkeypatch.setenv("FL_MOBILE_CHROMIUM", "/no/such/browser")
    assert find_chromium() is None
    assert "FL_MOBILE_CHROMIUM=/no/such/browser" in str(missing_chromium())


def test_npm_that_fails_is_quoted(nothing_installed: Path) -> None:
    program(nothing_installed / "npm", "echo 'npm error network getaddrinfo ENOTFOUND' >&2; exit 1\n")
    assert missing_litertjs() is None, "npm is there; that there is no network shows when it is used"
    with pytest.raises(ConfigError, match=r"could not fetch @litertjs/core@.*ENOTFOUND.*copy it into"):
        litertjs_resources()


def test_npm_that_sends_something_else_is_refused(nothing_installed: Path, tmp_path: Path) -> None:
    (tmp_path / "other.tgz").write_bytes(some_tarball())
    name = PACKAGES[0].tarball
    program(
        nothing_installed / "npm",
        f'while [ "$1" != --pack-destination ]; do shift; done; /bin/cp {tmp_path}/other.tgz "$2/{name}"\n',
    )
    with pytest.raises(ConfigError, match="is not the pinned @litertjs/core"):
        litertjs_resources()
    assert not cache_folder().exists(), "nothing unchecked reaches the cache"


def test_a_changed_cache_is_refused(nothing_installed: Path) -> None:
    cache_folder().mkdir(parents=True)
    for package in PACKAGES:
        (cache_folder() / package.tarball).write_bytes(some_tarball())
    assert missing_litertjs() is None
    with pytest.raises(ConfigError, match=r"litertjs-core-.*tgz is not the pinned .* Remove the file"):
        litertjs_resources()


@pytest.mark.parametrize("data", [b"", b"\0", some_tarball()])
def test_integrity_of_anything_else_fails(data: bytes) -> None:
    for package in PACKAGES:
        with pytest.raises(ConfigError, match="expected sha512-"):
            check_integrity(data, package, "here")
