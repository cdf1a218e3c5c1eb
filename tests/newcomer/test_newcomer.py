"""The package as a newcomer gets it: its wheel alone, installed somewhere else (`run.py` says how)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run.py")


@pytest.mark.tf
def test_all_that_a_newcomer_does_works_with_the_wheel_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--short"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-3000:]
