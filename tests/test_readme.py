"""README's commands: the short ones are run as they stand, the long ones must at least be commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.tf
def test_first_steps_run_as_written(tmp_path: Path) -> None:
    """Blocks marked ``console`` are a session: every line, in order, in one empty folder."""
    lines = [line for block in blocks("console") for line in commands(block)]
    assert len(lines) >= 5
    for line in lines:
        done = run(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.tf
def test_the_python_lines_run_as_written(tmp_path: Path) -> None:
    (block,) = blocks("python")
    (tmp_path / "first.py").write_text(block)
    done = run(f"{sys.executable} first.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.strip().splitlines()) == 8
    assert (tmp_path / "digits-bundle" / "int8.tflite").exists()


def test_every_long_command_exists() -> None:
    """Blocks marked ``sh`` take minutes: each names a make target, a verb or a script that is there."""
    help_text = run("fl-mobile --help", ROOT).stdout
    makefile = (ROOT / "Makefile").read_text()
    checked = 0
    for line in (c for block in blocks("sh") for c in commands(block)):
        words = shlex.split(line)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        elif words[0] == "fl-mobile":
            assert f" {words[1]} " in help_text, line
        elif words[0] == "python":
            assert (ROOT / words[1]).exists(), line
        else:
            assert words[0] in ("git", "npm", "apt-get", "cd"), line
        checked += 1
    assert checked >= 4


def test_links_inside_the_repository_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "android_stub/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"
