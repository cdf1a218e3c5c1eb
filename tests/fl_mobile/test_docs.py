"""Examples in docstrings are run, and the update path stays light."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import fl_mobile

KERAS_SIDE = ("fl_mobile.models.keras_bridge", "fl_mobile.models")
UPDATE_PATH = sorted(
    info.name
    for info in pkgutil.walk_packages(fl_mobile.__path__, "fl_mobile.")
    if not info.name.startswith(KERAS_SIDE)
)


@pytest.mark.parametrize("name", UPDATE_PATH)
def test_docstring_examples_give_what_they_say(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_update_path_imports_without_tensorflow_or_plots():
    heavy = ("tensorflow", "keras", "matplotlib", "pandas", "typer")
    code = f"import sys, {', '.join(UPDATE_PATH)}; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
