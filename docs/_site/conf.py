"""Sphinx settings of the documentation site; `build.py` lays out the pages and calls it."""

import os
from importlib.metadata import version as installed

project = "fl-mobile"
author = "the fl-mobile authors"
copyright = "the fl-mobile authors, Apache-2.0"
release = version = installed("fl-mobile")

extensions = ["myst_nb"]  # Markdown by myst-parser, and tutorials, which are notebooks
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = os.environ.get("FL_MOBILE_NOTEBOOKS", "off")
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"  # what libraries say while they start
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
