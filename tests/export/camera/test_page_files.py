"""The page is self-contained: whatever it names is served, and nothing it names lies elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from export.camera.site import PAGE_FILES
from export.runtimes.browser.litertjs import PACKAGES
from export.runtimes.browser.server import MIME_TYPES

PAGE = files("export.camera") / "page"
RUNNER = files("export.runtimes.browser") / "page"
TEXTS = {name: (PAGE / name).read_text(encoding="utf-8") for name in ("index.html", *PAGE_FILES)}
TEXTS |= {name: (RUNNER / name).read_text(encoding="utf-8") for name in ("runner.html", "runner.js")}
OURS = {f"/{name}" for name in (*PAGE_FILES, "runner.js")}
LITERT = {path for package in PACKAGES for path in package.members.values()}


def test_no_page_file_is_forgotten() -> None:
    assert {entry.name for entry in PAGE.iterdir()} == {"index.html", *PAGE_FILES}
    assert all("." + name.rpartition(".")[2] in MIME_TYPES for name in PAGE_FILES)


@pytest.mark.parametrize("name", TEXTS)
def test_every_address_is_served_here(name: str) -> None:
    named = re.findall(r'(?:src|href)="([^"]+)"|"(/[^"\s]*)"|from "\./([^"]+)"', TEXTS[name])
    paths = {a or b or f"/{c}" for a, b, c in named}
    unknown = paths - OURS - LITERT - {"/bundle.json", "/model.tflite", "/litert/wasm/"}
    assert not unknown


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_lies_elsewhere(name: str) -> None:
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", TEXTS[name])) - {"http://www.w3.org"}  # SVG's namespace
    assert not addresses


@pytest.mark.parametrize("name", ["index.html", "runner.html"])
def test_scripts_and_styles_stand_in_files(name: str) -> None:
    """The Content-Security-Policy refuses inline ones, so they would silently not run."""
    assert not re.search(r"\son\w+=|\sstyle=|<style", TEXTS[name])
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", TEXTS[name]) == ['<script type="importmap">']


def test_both_pages_map_the_runtime_alike() -> None:
    maps = {re.search(r'type="importmap">(.*?)</script>', TEXTS[name])[1] for name in ("index.html", "runner.html")}  # type: ignore[index]
    assert len(maps) == 1


def test_the_page_can_be_used_without_seeing_it() -> None:
    html = TEXTS["index.html"]
    assert '<html lang="en">' in html
    for image in re.findall(r"<(?:img|canvas|video)[^>]*>", html):
        assert re.search(r'\balt="|aria-label="', image), image
    for control in re.findall(r"<input(?![^>]*hidden)[^>]*>", html):
        assert re.search(rf"<label[^>]*>\s*{re.escape(control)}", html), control
    assert 'aria-live="polite"' in html
    assert 'role="alert"' in html
