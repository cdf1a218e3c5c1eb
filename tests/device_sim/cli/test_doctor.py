"""`fl-mobile doctor` against a real environment: what it says of packages is what they say of themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fl_mobile
from device_sim.cli import make_app
from device_sim.cli.doctor import ADDS, examine
from export.runtimes import RUNTIMES
from tests.device_sim.cli_runs import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[3]


def test_it_says_what_is_here_and_ends_with_0() -> None:
    shown = CliRunner().invoke(make_app(), ["doctor", "--format", "json"])
    assert shown.exit_code == 0
    found = json.loads(shown.output)
    assert found["fl_mobile"] == fl_mobile.__version__
    assert {row["name"]: row["version"] for row in found["packages"]}["numpy"] == np.__version__
    assert [row["name"] for row in found["runtimes"]] == list(RUNTIMES)
    assert all(row["here"] or row["reason"] for row in found["runtimes"])
    text = CliRunner().invoke(make_app(), ["doctor"])
    assert text.exit_code == 0
    assert all(name in text.output for name in (*RUNTIMES, *ADDS))


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(ADDS) == set(project["optional-dependencies"])


def test_what_is_missing_or_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation with other wishes, found first on the path, as importlib.metadata finds the real one."""
    told = tmp_path / "fl_mobile-9.dist-info"
    told.mkdir()
    wishes = [
        "numpy<1",
        "no-such-package-at-all>=2",
        "pytest",
        'another-missing-one; extra == "demo"',
        "numpy<1; python_version < '3'",
    ]
    lines = [
        "Metadata-Version: 2.1",
        "Name: fl-mobile",
        "Version: 9",
        "Provides-Extra: demo",
        *(f"Requires-Dist: {w}" for w in wishes),
    ]
    (told / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = examine()
    assert [(row["name"], row["fits"]) for row in found["packages"]] == [
        ("numpy", False),
        ("no-such-package-at-all", False),
        ("pytest", True),
    ]
    assert found["problems"] == [
        f"numpy: wanted <1, here {np.__version__}",
        "no-such-package-at-all: wanted >=2, here is missing",
    ]
    demo = next(row for row in found["extras"] if row["name"] == "demo")
    assert (demo["here"], demo["missing"]) == (False, ["another-missing-one"])


def test_a_broken_package_is_a_finding_not_an_error(tmp_path: Path) -> None:
    """Who asks the doctor may be ill: NumPy that raises when it is imported, and no home directory."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(
        'raise ImportError("numpy was built for another Python\\nand so on")'
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from device_sim.cli import main; main()"
    kept = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_CACHE_HOME")}
    for output in ("text", "json"):
        shown = subprocess.run(
            [sys.executable, "-c", code, "doctor", "--format", output], capture_output=True, text=True, env=kept
        )
        assert shown.returncode == 0, shown.stderr
        assert "runtimes cannot be looked at: ImportError: numpy was built for another Python" in shown.stdout


def test_a_user_without_home_directory_is_no_error() -> None:
    """As in containers that run under a number nobody has: `~` stays as it is."""
    if os.getuid():
        pytest.skip("only root can become somebody else")
    lines = (
        "import os; os.environ.pop('HOME', None); os.environ.pop('XDG_CACHE_HOME', None)",
        "from device_sim.cli.doctor import examine; from device_sim.datasets import DATASETS",
        "examine()  # imports what another user may not be allowed to read",
        "os.setuid(54321)",
        "examine(); [row.missing() for row in DATASETS.values()]",
    )
    shown = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env=environment())
    assert shown.returncode == 0, shown.stderr


def test_caches_are_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fl-mobile" / "loops").mkdir(parents=True)
    (tmp_path / "fl-mobile" / "loops" / "a.nbi").write_bytes(bytes(1234))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [row["bytes"] for row in examine()["caches"] if row["path"] == str(tmp_path / "fl-mobile")] == [1234]


def test_the_shell_completes_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script of `--install-completion` asks when TAB is pressed."""
    asked = {"_FL_MOBILE_COMPLETE": "complete_bash", "COMP_WORDS": "fl-mobile doc", "COMP_CWORD": "1"}
    shown = CliRunner().invoke(make_app(), [], prog_name="fl-mobile", env=asked)
    assert shown.output.split() == ["doctor"]
