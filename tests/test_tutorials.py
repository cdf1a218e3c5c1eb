"""Tutorials are notebooks without outputs, and every cell of them runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def test_there_is_one_for_each_kind_of_reader() -> None:
    names = {page.stem for page in PAGES}
    assert names == {"smart-camera", "keyboard", "activity", "privacy", "compression", "real-phones"}
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"tutorials/{name}\n" in index for name in names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_begins_with_a_heading_and_stores_no_output(page: Path) -> None:
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'fl-mobile[docs]'")
    import nbformat

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(str(page), 4)
    runner = client.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    runner.execute()
