"""Where machine code was made ahead of time, no run compiles any."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_sim.cli.simulate import _codes_entropy
from device_sim.experiment.toml import parse_experiment
from fl_mobile.kernels.built import misfit
from fl_mobile.kernels.compiled import built_set
from tests.device_sim.cli_runs import SMALL, environment

pytestmark = pytest.mark.tf

TELLS = """
import os, sys
from numba.core import event

class Tells(event.Listener):
    def on_start(self, event):
        os.write(2, ("compiles " + event.data["dispatcher"].py_func.__qualname__ + os.linesep).encode())

    def on_end(self, event):
        pass

event.register("numba:compile", Tells())
from device_sim.cli import main
sys.argv[0] = "fl-mobile"
main()
"""

SKETCH = "upload.codec=sketch:k=256"
NOISE = ("privacy.noise-multiplier=1", "privacy.reproducible=true")
RUNS = {
    "default": ("upload.codec=ecsq",),
    "rate-and-distortion": ("upload.codec=ecsq:rounding=rdo", "upload.memory=error-feedback"),
    "sketch": (SKETCH,),
    "eden": ("upload.codec=flat+eden:0.5",),
    "powersgd": ("upload.codec=powersgd:2",),
    "masks": (SKETCH, "masks.group=4"),
    "central": ("upload.codec=ecsq", "privacy.mode=central", "privacy.sampling=none-assumed", *NOISE),
    "distributed": (SKETCH, "masks.group=4", "privacy.mode=distributed", *NOISE),
    "local": ("upload.codec=ecsq", "privacy.mode=local", *NOISE),
    "median": ("upload.codec=ecsq", "server.aggregation=median"),
}


@pytest.fixture
def new_home(tmp_path: Path) -> Path:
    """The cache of a machine that has nothing but the set that `make loops` made."""
    file = built_set()
    if file is None:
        pytest.skip(f"no machine code was made ahead of time ({misfit() or 'make loops'})")
    home = tmp_path / "cache" / "fl-mobile" / file.parent.name
    home.mkdir(parents=True)
    shutil.copy(file, home)
    return tmp_path / "cache"


def compiles(home: Path, folder: Path, *arguments: str) -> list[str]:
    """Runs ``fl-mobile``; returns the loops that were compiled."""
    done = subprocess.run(
        [sys.executable, "-c", TELLS, *arguments],
        cwd=folder,
        env=environment(XDG_CACHE_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stderr.splitlines() if line.startswith("compiles ")]


@pytest.mark.sample("default")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_compiles_nothing(name: str, new_home: Path, tmp_path: Path) -> None:
    changes = [part for change in RUNS[name] for part in ("--set", change)]
    run = ("simulate", *SMALL, *changes, "--rounds", "2", "--no-export", "--out", "run")
    assert compiles(new_home, tmp_path, *run) == []
    if name == "default":
        assert compiles(new_home, tmp_path, "measure", "run", "ecsq") == []


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ((), True),
        (("upload.codec=auto", "upload.target-ratio=100"), True),
        (("upload.codec=q4+deflate",), True),  # downloads are entropy-coded
        (("upload.codec=q4+deflate", "download.mode=full"), False),
        ((SKETCH, "download.mode=full"), False),
    ],
)
def test_a_run_waits_for_machine_code_only_where_much_would_be_compiled(changes: tuple[str, ...], waits: bool) -> None:
    assert _codes_entropy(parse_experiment("", changes)) is waits
