"""The documentation site builds without a warning and has every verb, key and row; its link checker finds faults."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "docs" / "_site" / "build.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'fl-mobile[docs]'")
    out = tmp_path_factory.mktemp("site") / "docs"
    told = subprocess.run(
        [sys.executable, str(BUILD), "--without-outputs", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return out


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_there_and_listed(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists()
        assert page.stem == "index" or f'href="{page.stem}.html"' in index
    for page in (ROOT / "docs" / "tutorials").glob("*.ipynb"):
        assert f'href="tutorials/{page.stem}.html"' in index
    assert '<meta name="viewport"' in index.replace("<meta content", "<meta"), "it fits a phone"


def test_reference_has_every_key_verb_and_row(site: Path) -> None:
    from device_sim.cli import VERBS
    from device_sim.experiment.toml import all_keys
    from fl_mobile.aggregation import AGGREGATORS
    from fl_mobile.codecs import STAGES

    keys, verbs, tables = (text_of(site / "reference" / f"{name}.html") for name in ("keys", "verbs", "tables"))
    assert [key for key in all_keys() if key not in keys] == []
    assert [verb.__name__ for verb in VERBS if f"\n{verb.__name__}" not in verbs] == []
    assert "--set KEY=VALUE" in verbs
    names = text_of(site / "reference" / "names.html")
    assert "class Run" in names
    assert "evaluate(…): Returns accuracy and loss" in names
    assert "clients: Clients," in names
    assert [name for name in (*STAGES, *AGGREGATORS) if name not in tables] == []


def test_the_reference_knows_every_table_and_names_keys_that_exist() -> None:
    """CONTRIBUTING lists the tables that grow by a row; those with names for users are on the site."""
    from device_sim.experiment.toml import all_keys

    sys.path.insert(0, str(BUILD.parent))
    try:
        from reference import TABLES
    finally:
        sys.path.remove(str(BUILD.parent))
    shown = {where.partition(":")[2] for where, _ in TABLES.values()}
    grown = set(re.findall(r"\| `([A-Z_]+)`, `", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert grown - shown == {"CROSSINGS"}
    keys = set(all_keys())
    assert [used for _, used in TABLES.values() if set(re.findall(r"`(\w[\w-]*\.[\w.-]+)`", used)) - keys] == []


def test_reading_needs_no_network_and_no_link_is_broken(tmp_path: Path) -> None:
    """The build ran the checker over all pages; here it must see what is wrong."""
    sys.path.insert(0, str(BUILD.parent))
    try:
        from links import broken_links
    finally:
        sys.path.remove(str(BUILD.parent))
    (tmp_path / "other.html").write_text('<h2 id="here">Here</h2>')
    (tmp_path / "good.html").write_text(
        '<a href="other.html#here">x</a><a href="#top">x</a><a href="https://a.example">x</a>'
    )
    assert broken_links(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<a href="gone.html">x</a><a href="other.html#gone">x</a><img src="gone.png"><script src="https://cdn.example/x.js">'
    )
    assert len(broken_links(tmp_path)) == 4


def test_docstrings_become_pages_as_they_are_meant() -> None:
    sys.path.insert(0, str(BUILD.parent))
    try:
        from as_markdown import docstring
    finally:
        sys.path.remove(str(BUILD.parent))
    made = docstring(
        "Returns *a* `b`.\n\n```\nx ─▶ y\n\n[z]\n```\n>>> f(1)\n2\n\n"
        "Args:\n    one: The first,\n        long.\n    two: ``c|d``.\n"
    )
    assert made.split("\n\n")[0] == r"Returns \*a\* `b`."
    assert "```text\nx ─▶ y\n\n[z]\n```" in made
    assert "```pycon\n>>> f(1)\n2\n```" in made
    assert "**Args**\n\n- `one`: The first, long.\n- `two`: `c|d`." in made
