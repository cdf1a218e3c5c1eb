"""Commands of README and docs/: short ones are run as they stand, long ones must at least be commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from device_sim.cli import VERBS, make_app
from device_sim.experiment.toml import all_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent
FOLDERS = ("fl_mobile", "device_sim", "export", "tests", "benchmarks", "docs", "android_stub", "deploy")


def blocks(language: str, *pages: Path) -> list[str]:
    return [b for p in pages for b in re.findall(rf"```{language}\n(.*?)```", p.read_text(encoding="utf-8"), re.DOTALL)]


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


def test_readme_is_for_people() -> None:
    """One picture, two commands, some Python, a table: the rest stands in docs/, linked from page to page."""
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) < 120
    found, waiting = {ROOT / "docs" / "index.md"}, [PAGES[0]]
    while waiting:
        page = waiting.pop()
        targets = re.findall(r"\]\(([\w/-]+\.md)[#)]", page.read_text(encoding="utf-8"))
        new = {(page.parent / target).resolve() for target in targets} - found
        found |= new
        waiting += [target for target in new if target in PAGES]
    assert set(PAGES[1:]) <= found


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.parametrize("page", [p for p in PAGES if blocks("console", p)], ids=lambda page: page.stem)
def test_sessions_run_as_written(page: Path, tmp_path: Path) -> None:
    """Blocks marked ``console`` are a session: every line of a page, in order, in a folder with the page's modules."""
    for block in blocks("python", page):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block)
    for line in (line for block in blocks("console", page) for line in commands(block)):
        done = run(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


def test_there_is_a_session_to_start_with() -> None:
    assert sum(len(commands(block)) for block in blocks("console", ROOT / "docs" / "start.md")) >= 5


@pytest.mark.slow  # `make test` runs them from the wheel: tests/newcomer/run.py --short
@pytest.mark.tf
def test_the_python_lines_run_as_written(tmp_path: Path) -> None:
    (block,) = blocks("python", PAGES[0])
    (tmp_path / "first.py").write_text(block)
    done = run(f"{sys.executable} first.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.strip().splitlines()) == 8 + 3, "eight rounds, a table of two codecs"
    assert (tmp_path / "digits-bundle" / "int8.tflite").exists()


@pytest.mark.slow
@pytest.mark.tf
def test_the_page_about_python_runs_from_top_to_bottom(tmp_path: Path) -> None:
    lines = blocks("python", ROOT / "docs" / "python.md")
    assert len(lines) >= 6
    (tmp_path / "page.py").write_text("\n".join(lines))
    done = run(f"{sys.executable} page.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"kept", "bundle", "report.html", "codecs.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_start_lists_every_verb() -> None:
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", (ROOT / "docs" / "start.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {verb for row in rows for verb in re.findall(r"[a-z]+", row)} == {verb.__name__ for verb in VERBS}


def test_start_shows_the_python_lines_of_readme() -> None:
    """They are run once, above: the same block in both places."""
    assert blocks("python", ROOT / "docs" / "start.md") == blocks("python", PAGES[0])


def test_every_long_command_exists() -> None:
    """Blocks marked ``sh`` take minutes: each names a make target, a verb or a script that is there."""
    help_text = run("fl-mobile --help", ROOT).stdout
    makefile = (ROOT / "Makefile").read_text()
    checked = 0
    for line in (c for block in blocks("sh", *PAGES) for c in commands(block)):
        words = shlex.split(line)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        elif words[0] == "fl-mobile":
            assert f" {words[1]} " in help_text, line
        elif words[0] == "python":
            assert (ROOT / words[1]).exists(), line
        elif words[0] == "pytest":
            assert all((ROOT / w).exists() for w in words[1:] if w.startswith("tests/")), line
        else:
            assert words[0] in ("git", "npm", "apt-get", "cd", "pip"), line
        checked += 1
    assert checked >= 8


def test_verbs_options_and_keys_that_pages_name_exist() -> None:
    """In blocks, in sentences and in tables: ``fl-mobile VERB --option``, ``--set KEY=…``, and `section.key` alone."""
    app: Any = get_command(make_app())
    options = {verb: {o for p in c.params for o in (*p.opts, *p.secondary_opts)} for verb, c in app.commands.items()}
    keys = all_keys()
    sections = "|".join(sorted({key.partition(".")[0] for key in keys if "." in key}))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in (
            *re.findall(r"`fl-mobile ([a-z][^`]*)`", text),
            *re.findall(r"^fl-mobile ([a-z].*)$", text, re.MULTILINE),
        ):
            verb, _, rest = line.split("  ")[0].partition(" ")
            assert verb in options, f"{page.name}: fl-mobile {line}"
            unknown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) - options[verb] - {"--help"}
            assert not unknown, f"{page.name}: fl-mobile {line}"
        named = re.findall(r"--set ([a-z.-]+)=", text) + re.findall(
            rf"`((?:{sections})\.[a-z.-]+)(?: = [^`]*|=[^`]*)?`", text
        )
        for key in set(named) - {"model.keras", "task.json"}:  # files of a run and of a bundle
            assert any(known == key or known.startswith(f"{key}.") for known in keys), f"{page.name}: no key {key}"


def test_files_that_pages_name_exist() -> None:
    """Files of this repository by their path, `{a,b}` and `*` as a shell reads them."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "android_stub" / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(rf"(?<![\w/.])((?:{'|'.join(FOLDERS)})/[\w./{{}},*-]*)", text):
            path, _, choices = name.rstrip(".,").partition("{")
            inside, _, after = choices.partition("}")
            for each in inside.split(","):
                assert list(ROOT.glob(f"{path}{each}{after}".rstrip("/"))), f"{page.name}: {name}"


@pytest.mark.parametrize(
    "name",
    [
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "android_stub/README.md",
        *(str(p.relative_to(ROOT)) for p in PAGES),
    ],
)
def test_links_inside_the_repository_lead_somewhere(name: str) -> None:
    """Also to a heading of another page, by the name GitHub and the site give it."""
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, place in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#?([^)]*)\)", text):
        file = (ROOT / name).parent / target if target else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if place:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, (
                f"{name}: #{place}"
            )
