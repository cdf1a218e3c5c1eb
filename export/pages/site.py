"""A proven bundle as a web page: its artifacts and what the page is told beside the page's own files and LiteRT.js."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from export.bundles.folder import ANYONE, ARTIFACTS, Bundle, Trust, read_bundle
from export.pages.table import PAGES, SHARED
from export.runtimes.browser import Resource, litertjs_resources
from export.verify.bundle import verify_bundle
from fl_mobile.errors import ExportError, check_known


def page_resources(path: Path, trust: Trust = ANYONE, *, page: str = "") -> tuple[str, dict[str, Resource]]:
    """Returns which page suits the bundle at ``path``, and everything it asks for, by path; ``/`` is the page.

    Only what the bundle's manifest vouches for is in it, and the bundle has passed `verify_bundle`.

    Args:
        path: The bundle folder.
        trust: Whose signature is wanted; by default none is.
        page: Row of `PAGES`; empty takes the one that suits the bundle.

    Raises:
        VerifyError: The bundle is not signed as wanted, damaged, or does not answer as it did when it was written.
        ExportError: No page, or not this one, suits its model.
        ConfigError: There is no such page, or LiteRT.js cannot be had; the message says how to get it.
    """
    bundle = read_bundle(path, trust)
    bundle.expect(ARTIFACTS)
    name = page or suiting(bundle)
    check_known("page", name, PAGES)
    refuse(bundle, name)
    verify_bundle(path, trust=trust)
    row, folder = PAGES[name], files("export.pages") / "files"
    own = {
        f"/{file}": Resource.of(file, (folder / place / file).read_bytes())
        for place, names in (("shared", SHARED), (name, row.files))
        for file in names
    }
    artifacts = {f"/{name}": Resource.of(name, data) for name, data in bundle.files.items() if name.endswith(".tflite")}
    return name, {
        **litertjs_resources(),
        **artifacts,
        **own,
        "/": Resource.of("index.html", (folder / name / "index.html").read_bytes()),
        "/bundle.json": Resource.of("bundle.json", json.dumps(row.described(bundle)).encode()),
    }


def refuse(bundle: Bundle, page: str) -> None:
    """Raises ``ExportError`` unless the bundle is for a page."""
    if reason := PAGES[page].refused(bundle):
        raise ExportError(f"{bundle.path}: {reason}")


def page_of(path: Path) -> str:
    """Returns the page that suits the bundle at ``path``, or "".

    Raises:
        VerifyError: It is damaged.
    """
    try:
        return suiting(read_bundle(path))
    except ExportError:
        return ""


def suiting(bundle: Bundle) -> str:
    """Returns the first page that a bundle is for.

    Raises:
        ExportError: There is none.
    """
    reasons = {name: row.refused(bundle) for name, row in PAGES.items()}
    found = next((name for name, reason in reasons.items() if not reason), None)
    if found is None:
        raise ExportError(f"{bundle.path}: no page shows this model: {'; '.join(reasons.values())}")
    return found
