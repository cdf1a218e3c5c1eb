"""The page is self-contained: whatever it names is served, and nothing it names lies elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from export.pages import PAGES
from export.pages.table import SHARED
from export.runtimes.browser.litertjs import PACKAGES
from export.runtimes.browser.server import MIME_TYPES

FILES = files("export.pages") / "files"
RUNNER = files("export.runtimes.browser") / "page"
OWN = {"shared": SHARED, **{name: ("index.html", *row.files) for name, row in PAGES.items()}}
TEXTS = {
    f"{folder}/{name}": (FILES / folder / name).read_text(encoding="utf-8")
    for folder, names in OWN.items()
    for name in names
}
TEXTS |= {f"runner/{name}": (RUNNER / name).read_text(encoding="utf-8") for name in ("runner.html", "runner.js")}
HTML = [name for name in TEXTS if name.endswith(".html")]
LITERT = {path for package in PACKAGES for path in package.members.values()}


@pytest.mark.parametrize("folder", OWN)
def test_no_page_file_is_forgotten(folder: str) -> None:
    assert {entry.name for entry in (FILES / folder).iterdir()} == set(OWN[folder])
    assert all("." + name.rpartition(".")[2] in MIME_TYPES for name in OWN[folder])
    assert {entry.name for entry in FILES.iterdir()} == set(OWN)


@pytest.mark.parametrize("page", PAGES)
def test_no_file_of_a_page_hides_a_shared_one(page: str) -> None:
    assert not set(PAGES[page].files) & set(SHARED)


@pytest.mark.parametrize("name", TEXTS)
def test_every_address_is_served_here(name: str) -> None:
    named = re.findall(r'(?:src|href)="([^"]+)"|"(/[^"\s]*)"|from "\./([^"]+)"', TEXTS[name])
    paths = {a or b or f"/{c}" for a, b, c in named}
    folder = name.partition("/")[0]
    ours = {f"/{own}" for own in (*SHARED, *OWN.get(folder, ()), "runner.js")}
    unknown = paths - ours - LITERT - {"/bundle.json", "/model.tflite", "/litert/wasm/"}
    assert not unknown


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_lies_elsewhere(name: str) -> None:
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", TEXTS[name])) - {"http://www.w3.org"}  # SVG's namespace
    assert not addresses


@pytest.mark.parametrize("name", HTML)
def test_scripts_and_styles_stand_in_files(name: str) -> None:
    """The Content-Security-Policy refuses inline ones, so they would silently not run."""
    assert not re.search(r"\son\w+=|\sstyle=|<style", TEXTS[name])
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", TEXTS[name]) == ['<script type="importmap">']


def test_all_pages_map_the_runtime_alike() -> None:
    maps = {re.search(r'type="importmap">(.*?)</script>', TEXTS[name])[1] for name in HTML}  # type: ignore[index]
    assert len(maps) == 1


@pytest.mark.parametrize("page", PAGES)
def test_the_page_can_be_used_without_seeing_it(page: str) -> None:
    html = TEXTS[f"{page}/index.html"]
    assert '<html lang="en">' in html
    for image in re.findall(r"<(?:img|canvas|video)[^>]*>", html):
        assert re.search(r'\balt="|aria-label="', image), image
    for control in re.findall(r"<(?:input|select|textarea)(?![^>]*hidden)[^>]*>", html):
        assert re.search(rf"<label[^>]*>(?:(?!</label>).)*{re.escape(control)}", html, re.DOTALL), control
    assert 'aria-live="polite"' in html
    assert 'role="alert"' in html


@pytest.mark.parametrize("page", PAGES)
def test_scripts_ask_for_elements_that_the_page_has(page: str) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', TEXTS[f"{page}/index.html"]))
    own = [f"{page}/{name}" for name in PAGES[page].files if name.endswith(".js")]
    asked = {one for name in (*own, "shared/page.js") for one in re.findall(r'\$\("([^"]+)"\)', TEXTS[name])}
    assert asked <= ids, asked - ids
