"""What a release says of itself agrees: one version, types, GitHub's checks and .ci/run's, the changelog's form."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import fl_mobile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_has_one_source() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "fl_mobile/__init__.py"
    (cited,) = re.findall(r"^version: (.*)$", read("CITATION.cff"), re.MULTILINE)
    assert cited == fl_mobile.__version__


def test_types_are_shipped() -> None:
    for package in tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").is_file()


def test_github_runs_what_ci_runs() -> None:
    """`.ci/run` is the one list of checks: workflows call it, the hooks of a commit are the lines of `make lint`."""
    steps = {
        name: re.findall(r"- run: (.*)", read(f".github/workflows/{name}.yml")) for name in ("tests", "docs", "release")
    }
    assert steps["tests"] == ["bash .ci/run"]
    assert steps["docs"] == ["make docs"]
    assert steps["release"][0] == "bash .ci/run"
    assert any("tests/versions/run.py" in line for line in steps["release"])
    assert steps["release"][-1].endswith("tests/newcomer/run.py --wheel dist/*-cp311-*.whl"), "what is published"
    assert "tests/newcomer/run.py" in read("Makefile").partition("\ncheck-all:")[2].partition("\n\n")[0]
    lint = read("Makefile").partition("\nlint:")[2].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
    hooks = re.findall(r"entry: (\S+)(.*)", read(".pre-commit-config.yaml"))
    assert {tool for tool, _ in hooks} == set(re.findall(r"\.venv/bin/[\w-]+", lint))


def test_the_tag_check_of_a_release_finds_the_version() -> None:
    assert f'__version__ = "{fl_mobile.__version__}"' in read("fl_mobile/__init__.py").splitlines()


def test_the_changelog_keeps_its_form() -> None:
    """keepachangelog.com: versions newest first, Unreleased on top, changes by kind."""
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_what_github_reads_is_yaml_it_can_read() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'fl-mobile[docs]'")
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        flow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert flow["name"] == file.stem
        for job in flow["jobs"].values():
            assert job["runs-on"] == "ubuntu-latest"
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    for file in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")):
        assert {"name", "about"} <= set(yaml.safe_load(file.read_text(encoding="utf-8").split("---")[1]))
