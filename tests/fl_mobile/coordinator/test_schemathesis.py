"""Requests that ``docs/openapi.json`` allows, and such as it forbids: answered as it says, and never 5xx."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fl_mobile.coordinator.test_web import Served, opened, served

__all__ = ["opened", "served"]

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("unsupported_method", "allow_header_conformance"),
)


def program() -> str:
    found = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("schemathesis is not installed: pip install -e '.[dev]'")
    return found


def run(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    told = ["--checks", ",".join(CHECKS), "--request-timeout", "10", "--continue-on-failure", "--no-color"]
    command = [program(), "run", str(DOCUMENT), "-u", url, *told, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(
    "options",
    [
        ("--phases", "fuzzing", "--max-time", "4", "--seed", "1"),
        pytest.param(("--max-time", "300"), marks=pytest.mark.slow),
    ],
    ids=["a few", "five minutes"],
)
def test_what_is_answered_is_what_the_document_says(opened: Served, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(opened.url, tmp_path, *options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "12 selected / 12 total" in done.stdout


@pytest.mark.slow
def test_it_catches_a_fault_of_the_server(opened: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened.coordinator, "now", lambda: 1 // 0)
    done = run(opened.url, tmp_path, "--max-time", "10", "--include-path", "/v1/run")
    assert done.returncode == 1
    assert "Server error" in done.stdout
