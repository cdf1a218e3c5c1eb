"""A bundle in a browser, on this computer only: the page that suits its task, with its ``.tflite`` files in LiteRT.js.

`page_resources` proves a bundle and returns a page; ``export.runtimes.browser.serving`` gives it to one computer.
"""

from export.pages.site import page_resources
from export.pages.table import PAGES

__all__ = ["PAGES", "page_resources"]
