"""``.tflite`` files in a web browser: LiteRT.js from npm, a loopback server, a headless Chromium.

`BrowserModel` runs any signature of a file; `serving` and `litertjs_resources` also carry the camera page.
"""

from export.runtimes.browser.chromium import BrowserError, Tab, open_tab
from export.runtimes.browser.litertjs import litertjs_resources, missing_litertjs
from export.runtimes.browser.server import Resource, serving
from export.runtimes.browser.session import BrowserModel, missing_browser

__all__ = [
    "BrowserError",
    "BrowserModel",
    "Resource",
    "Tab",
    "litertjs_resources",
    "missing_browser",
    "missing_litertjs",
    "open_tab",
    "serving",
]
