"""``python docs/_site/build.py [--without-outputs] [DIR]`` builds the documentation site into DIR, or build/docs.

```
docs/*.md, README's neighbours ─┐
docs/tutorials, executed ───────┤
reference.py, from the code ────┴─▶ DIR/../docs-source ─▶ Sphinx, warnings are errors ─▶ DIR ─▶ links.py
```
Tutorials are executed in minutes, and an error in one is an error of the build; ``--without-outputs`` leaves that out.
What is read needs no network. A page of docs/ that docs/index.md does not name is listed under "More".
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from links import broken_links
from reference import pages

ROOT = Path(__file__).parents[2]
WITHOUT = "--without-outputs"
BESIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
}
"""Pages at the top of the repository → where they stand on the site."""


def lay_out(source: Path) -> None:
    """Writes all pages of the site into an empty folder."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conf.py"), source)
    for file in sorted((ROOT / "docs").iterdir()):
        if file.is_file():
            shutil.copy(file, source)
    for file, page in BESIDE.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        for other, there in BESIDE.items():
            text = text.replace(f"]({other})", f"]({there})")
        (source / page).write_text(text.replace("](docs/", "]("), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "tutorials", source / "tutorials")
    shutil.copy(ROOT / "android_stub" / "README.md", source / "android.md")
    for name, text in pages().items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    index = source / "index.md"
    text = index.read_text(encoding="utf-8")
    found = [page for page in source.rglob("*") if page.suffix in (".md", ".ipynb")]
    written = {str(page.relative_to(source).with_suffix("")) for page in found} - {"index"}
    if more := sorted(written - set(re.findall(r"^[\w/-]+$", text, re.MULTILINE))):
        lines = "\n".join(more)
        index.write_text(f"{text}\n```{{toctree}}\n:caption: More\n\n{lines}\n```\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Returns 0, or 1 if Sphinx warned or a link is broken."""
    from sphinx.cmd.build import build_main

    folders = [one for one in arguments if one != WITHOUT]
    os.environ["FL_MOBILE_NOTEBOOKS"] = "off" if WITHOUT in arguments else "force"
    # What a notebook starts by name is this environment's; TensorFlow's greetings are no output of a tutorial.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    out = Path(folders[0] if folders else ROOT / "build" / "docs").resolve()
    source = out.parent / f"{out.name}-source"
    lay_out(source)
    shutil.rmtree(out, ignore_errors=True)
    options = ["-b", "html", "-q", "-W", "--keep-going", "-E", "-d", str(source / ".doctrees")]
    if build_main([*options, str(source), str(out)]):
        return 1
    told = broken_links(out)
    print("\n".join(told) if told else f"Wrote {out / 'index.html'}")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
