"""Who makes machine code of the loops, when, and what is told if it cannot be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fl_mobile.errors import ConfigError
from fl_mobile.kernels import build

BESIDE = """
import json
from fl_mobile.kernels.build import built_beside
told = []
with built_beside(told.append) as wait:
    {inside}
print(json.dumps(told))
"""


def told_beside(home: Path, inside: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", BESIDE.format(inside=inside)],
        env=dict(os.environ, XDG_CACHE_HOME=str(home / "cache"), TMPDIR=str(home), **environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: list[str] = json.loads(done.stdout)
    return told


def test_where_none_can_be_used_the_first_run_says_that_it_compiles_and_why(tmp_path: Path) -> None:
    (line,) = told_beside(tmp_path, "wait()", NUMBA_BOUNDSCHECK="1")
    assert line.endswith("compiled with the first round, a minute, once per version: NUMBA_BOUNDSCHECK is set")


def test_without_numba_at_work_nothing_is_said(tmp_path: Path) -> None:
    assert told_beside(tmp_path, "wait()", NUMBA_DISABLE_JIT="1") == []


def test_a_build_that_nobody_waits_for_ends_and_clears_up(tmp_path: Path) -> None:
    """As with Ctrl-C: the folder that its processes share appears, and goes."""
    inside = """import os, pathlib, select
    while not list(pathlib.Path(os.environ["TMPDIR"]).glob("fl-mobile-loops-*/fl-mobile-loops-*")):
        select.select([], [], [], 0.05)"""
    (line,) = told_beside(tmp_path, inside)
    assert "compiled meanwhile" in line
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_build_that_failed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> bytes:
        raise ConfigError("cannot be made: no room")

    for name, value in {"build": fails, "built_set": lambda: None, "cache_folder": lambda: tmp_path}.items():
        monkeypatch.setattr(build, name, value)
    for name, code in {"which_code": "none yet", "is_cold": True, "misfit": ""}.items():
        monkeypatch.setattr(build, name, lambda code=code: code)
    assert build.main([]) == 1
    assert capsys.readouterr().err == "cannot be made: no room\n"
    told: list[str] = []
    with build.built_beside(told.append) as wait:
        wait()
    (line,) = told
    assert line.endswith("once per version: cannot be made: no room")


def test_a_set_that_is_there_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "built_set", lambda: tmp_path / "set")
    monkeypatch.setattr(build, "build", lambda: pytest.fail("it was made again"))
    assert build.main([]) == 0
