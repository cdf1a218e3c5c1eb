"""Keras starts without what it does not need, and nobody else misses it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tf


def in_a_new_process(program: str) -> str:
    here = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}  # TFMOT sets it
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=here)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keras_does_not_take_along_what_it_can_do_without() -> None:
    found = in_a_new_process(
        "import sys\n"
        "from fl_mobile.models.keras_start import PASSED_OVER, import_keras\n"
        "import_keras()\n"
        "assert 'keras' in sys.modules\n"
        "assert not set(PASSED_OVER) & set(sys.modules), 'absent, not None: later imports would fail'\n"
        "import_keras()\n"
        "import matplotlib.pyplot, sklearn, keras\n"
        "keras.Sequential([keras.layers.Dense(2)]).build((None, 3))\n"
        "print(matplotlib.__name__, sklearn.__name__)"
    )
    assert found == "matplotlib sklearn"


def test_what_is_loaded_already_stays() -> None:
    found = in_a_new_process(
        "import sys, matplotlib\n"
        "from fl_mobile.models.keras_start import import_keras\n"
        "import_keras()\n"
        "print(sys.modules['matplotlib'] is matplotlib)"
    )
    assert found == "True"
