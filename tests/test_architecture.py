"""The borders of the packages, checked from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for package in ("fl_mobile", "device_sim", "export") for p in (ROOT / package).rglob("*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    lint = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([str(lint), "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_layers_hold() -> None:
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout


def test_it_catches_an_import_that_goes_upward(tmp_path: Path) -> None:
    for package in ("fl_mobile", "device_sim", "export"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert lint_imports(tmp_path).returncode == 0
    (tmp_path / "fl_mobile" / "wire_v2.py").write_text("import device_sim\n")
    assert lint_imports(tmp_path).returncode != 0


@pytest.mark.parametrize(
    "forbidden",
    [
        r"^\s*(import|from) (pickle|cPickle|marshal|dill|joblib|shelve)\b",
        r"allow_pickle\s*=\s*True",
        r"\btorch\.load\b|yaml\.load\(",
        r"\bSELECT_TF_OPS\b",
        r"\btime\.sleep\(",
        r"\bnp\.random\.(seed|rand|randn|normal|uniform|choice|shuffle|permutation)\(",
        r"\btf\.random\.set_seed\(",
        r"\bTODO\b|\bFIXME\b|\bXXX\b",
    ],
)
def test_nothing_forbidden_in_the_sources(forbidden: str) -> None:
    pattern = re.compile(forbidden, re.MULTILINE)
    found = [str(p.relative_to(ROOT)) for p in SOURCES if pattern.search(p.read_text(encoding="utf-8"))]
    assert not found


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert not {name: lines for name, lines in long.items() if lines > 400}
    assert sorted(long.values())[len(long) // 2] < 200
