"""Sphinx settings of the documentation site; `build.py` lays out the pages and calls it."""

from importlib.metadata import version as installed

project = "fl-mobile"
author = "the fl-mobile authors"
copyright = "the fl-mobile authors, Apache-2.0"
release = version = installed("fl-mobile")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_enable_extensions: list[str] = []
suppress_warnings = ["misc.highlighting_failure"]  # an ellipsis in an example is no mistake
highlight_language = "text"
smartquotes = False  # `--set` must stay two hyphens

html_theme = "furo"
html_title = f"fl-mobile {release}"
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None  # the same sources give the same pages
