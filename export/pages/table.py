"""The pages by name, in the order in which a bundle is offered to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from export.bundles.folder import Bundle
from export.pages import camera, form, keyboard, sensor


@dataclass(frozen=True)
class Page:
    """A row.

    Attributes:
        files: In ``files/<name>`` beside ``index.html``.
        refused: Why a bundle is not for this page, or "".
        described: What the page is told about a proven bundle: ``/bundle.json``.
    """

    files: tuple[str, ...]
    refused: Callable[[Bundle], str]
    described: Callable[[Bundle], dict[str, Any]]


PAGES: Mapping[str, Page] = {
    "camera": Page(("camera.js", "frame.js"), camera.refused, camera.described),
    "keyboard": Page(("keyboard.js", "keyboard.css", "text.js"), keyboard.refused, keyboard.described),
    "form": Page(("form.js", "form.css"), form.refused, form.described),
    "sensor": Page(("sensor.js", "sensor.css", "chart.js"), sensor.refused, sensor.described),
}
SHARED = ("page.css", "page.js", "model.js", "icon.svg")
"""Files of every page."""
