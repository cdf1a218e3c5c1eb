"""The borders of the packages, checked from outside."""

from __future__ import annotations

import ast
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


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the sets of modules that import one another, in a circle of any length."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set(), [start]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        reach[start] = seen
    return sorted({tuple(sorted(m for m in reach[a] if a in reach[m])) for a in graph if a in reach[a]})


def imports_of(root: Path, sources: list[Path]) -> dict[str, set[str]]:
    """Returns module → modules it imports anywhere, inside functions too; what only types need is left out."""
    names = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in sources}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        tree, graph[name] = ast.parse(path.read_text(encoding="utf-8")), set()
        typing_only = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in typing_only:
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                graph[name] |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
        # `from package import module` needs the module; the package's own face is what it is made of.
        graph[name] = {t for t in graph[name] if t in names and t != name and not name.startswith(f"{t}.")}
    return graph


def test_no_file_imports_itself_round_a_circle() -> None:
    assert circles(imports_of(ROOT, SOURCES)) == []


def test_it_catches_a_circle_even_inside_functions(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def late():\n    from c import thing\n")
    (tmp_path / "c.py").write_text("from a import thing\n")
    (tmp_path / "d.py").write_text("import a\n")
    assert circles(imports_of(tmp_path, sorted(tmp_path.glob("*.py")))) == [("a", "b", "c")]
