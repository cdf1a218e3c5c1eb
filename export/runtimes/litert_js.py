"""LiteRT.js in a headless Chromium: what the camera page and WebView apps run on, CPU through WebAssembly."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from export.runtimes.runtime import Runtime

if TYPE_CHECKING:  # servers and pipes are loaded when a browser is wanted
    from export.runtimes.browser import BrowserModel


@dataclass(frozen=True)
class BrowserSession:
    """One signature of a model in a browser that ends with this object."""

    model: BrowserModel
    signature: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one frame."""
        return self.model.run(self.signature, inputs)


def _missing() -> str | None:
    from export.runtimes.browser import missing_browser

    return missing_browser()


def _load(data: bytes, signature: str, threads: int) -> BrowserSession:
    """``threads`` is not used: LiteRT.js' threaded build needs a cross-origin isolated page, so this one has one."""
    from export.runtimes.browser import BrowserModel

    model = BrowserModel.load(data)
    session = BrowserSession(model, signature)
    weakref.finalize(session, model.close)
    return session


LITERT_JS = Runtime(
    "litert-js",
    _missing,
    _load,
    "LiteRT.js 2.5.3 in headless Chromium, WebAssembly on the CPU",
    ships=True,
    on_request=True,
)
