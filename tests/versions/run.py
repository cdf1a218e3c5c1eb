"""Installs the built wheel on every Python we promise and uses it from an empty folder.

``python tests/versions/run.py [3.12 …]`` needs nothing but the standard library and an index of packages. For each
version: an empty environment, ``pip install`` of the wheel (no checkout on the path, no extras), two rounds with a
tuned recipe among the exports, and the proof of what they left. An interpreter that is not here is a named skip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
SHOWN = ("numpy", "tensorflow", "keras", "ai-edge-litert", "numba")
SIMULATE = (
    *("simulate", "--out", "run", "--rounds", "2", "--quiet", "--format", "json"),
    *(
        "--set",
        "data.dataset=synthetic",
        "--set",
        "data.devices=10",
        "--set",
        "train.cohort=10",
        "--set",
        "model.name=mlp",
    ),
    *("--set", "train.epochs=5", "--set", 'output.recipes=["float32", "int8", "qat-int8"]'),
    *("--set", "output.tuning-data=synthetic", "--set", "output.tuning-epochs=6"),
    *("--set", "output.tuning-origin=devices-agreed"),
)
VERIFY = ("verify", "run", "--format", "json")


@dataclass(frozen=True)
class Row:
    """What became of one version: the packages pip chose, and ``outcome`` in words."""

    version: str
    outcome: str
    failed: bool = False
    packages: tuple[str, ...] = ()


class StepError(Exception):
    """A step that did not end well, in one line, with the end of what it wrote."""


def interpreters(version: str) -> Iterator[Path]:
    """Yields where a Python of this version may be: on the path, then in pyenv."""
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(versions.glob(f"{version}.*/bin/python"))


def find_python(version: str) -> Path | None:
    """Returns the first that really is this version: shims of pyenv are there also for what is not active."""
    ask = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"
    for python in interpreters(version):
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return python
    return None


def step(name: str, *command: str | Path, folder: Path) -> str:
    """Runs a command without this checkout on its path; returns its stdout."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FL_MOBILE", "VIRTUAL_ENV"))}
    done = subprocess.run([str(part) for part in command], cwd=folder, env=plain, capture_output=True, text=True)
    if done.returncode:
        raise StepError(f"{name} ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def try_version(version: str, wheel: Path) -> Row:
    """Returns the row of one version; its environment is gone afterwards."""
    python = find_python(version)
    if python is None:
        return Row(version, f"skipped: no python{version}, neither on PATH nor in pyenv")
    packages: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix=f"fl-mobile-{version}-") as made:
        base = Path(made)
        (base / "empty").mkdir()
        here, there = base / "venv" / "bin", base / "empty"
        try:
            step("venv", python, "-m", "venv", base / "venv", folder=there)
            step("pip install", here / "pip", "install", "--quiet", "--no-compile", wheel, folder=there)
            listed = json.loads(step("pip list", here / "pip", "list", "--format", "json", folder=there))
            chosen = {each["name"].lower().replace("_", "-"): each["version"] for each in listed}
            packages = tuple(chosen.get(name, "none") for name in SHOWN)
            summary = json.loads(step("simulate", here / "fl-mobile", *SIMULATE, folder=there))
            proven = json.loads(step("verify", here / "fl-mobile", *VERIFY, folder=there))
        except StepError as error:
            print(f"Python {version}: {error}", file=sys.stderr)
            return Row(version, str(error).partition(":\n")[0], failed=True, packages=packages)
    artifacts = ", ".join(each["file"] for each in summary["export"]["artifacts"])
    return Row(
        version, f"{summary['rounds']} rounds; {artifacts}; {len(proven['checks'])} checks passed", packages=packages
    )


def table(rows: list[Row]) -> str:
    """Returns the rows as text, one column a package."""
    lines = [("python", *SHOWN, "outcome")]
    lines += [(row.version, *(row.packages or ("",) * len(SHOWN)), row.outcome) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main(wanted: list[str]) -> int:
    """Returns the exit code: 0 if at least one version was tried and none failed."""
    if unknown := set(wanted) - set(VERSIONS):
        print(f"expected versions among {', '.join(VERSIONS)}; got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fl-mobile-wheel-") as made:
        step("wheel", sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", made, ROOT, folder=ROOT)
        wheel = next(Path(made).glob("*.whl"))
        typed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/py.typed")}
        if typed != {f"{package}/py.typed" for package in ("fl_mobile", "device_sim", "export")}:
            print(f"{wheel.name}: py.typed of three packages expected, got {sorted(typed)}", file=sys.stderr)
            return 1
        rows = []
        for version in wanted or VERSIONS:
            print(f"Python {version} …", file=sys.stderr, flush=True)
            rows.append(try_version(version, wheel))
    print(table(rows))
    return int(any(row.failed for row in rows) or not any(row.packages for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
