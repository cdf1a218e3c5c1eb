"""Does what a newcomer does, with the wheel alone: nothing of this repository is on the path of what it starts.

``python tests/newcomer/run.py`` makes an empty environment and installs the wheel with its extras from the index. Then,
in a folder with spaces and letters beyond ASCII, without a home directory that can be written:

```
doctor, new ─▶ the Python lines of README ─▶ a package of one's own, a row of every kind ─▶ the tutorials, executed
```
``--short`` takes all other packages from the environment that runs this script, for CI: the wheel is new, and so is the
plug-in; of the tutorials it executes none. ``--wheel FILE`` takes one that is built. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN, MODULE = "zoes-parts", "zoes_parts"
KINDS = f"""
import {MODULE}
from device_sim.check import check_part
for name, kind in {MODULE}.ROWS.items():
    found, laws = check_part(f"{MODULE}:{{name}}", kind if name.islower() else "")
    broken = [f"{{law.law}}: {{law.broken}}" for law in laws if law.broken]
    print(f"{{found}} {{name}}: {{broken or 'holds'}}")
    assert found == kind and not broken
"""
TELL = f"""
import sys, json
sys.path.insert(0, sys.argv[1])
import {MODULE}
print(json.dumps([{MODULE}.ROWS, {MODULE}.KEYS]))
"""
TUTORIAL = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
print(sum(cell.cell_type == "code" for cell in notebook.cells), "cells")
"""


class Newcomer:
    """An environment, a folder to work in, and no home.

    Args:
        base: An empty folder.
        wheel: The package.
        short: Whether every other package comes from the environment that runs this script.
    """

    def __init__(self, base: Path, wheel: Path, short: bool) -> None:
        self.folder, self.bin = base / "Zoës Fotos 2026", base / "venv" / "bin"
        self.folder.mkdir()
        (base / "home").mkdir(mode=0o555)
        # Root may write anywhere but below /proc.
        home = base / "home" if os.geteuid() else Path("/proc/self")
        dropped = ("PYTHON", "FL_MOBILE", "VIRTUAL_ENV", "XDG_")
        self._env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        self._env |= {"HOME": str(home), "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        self._env |= {name: str(base / "jupyter") for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}  # its own wishes
        self.do("environment", sys.executable, "-m", "venv", *(["--without-pip"] * short), base / "venv")
        # Without pip of its own: ours comes along with the other packages.
        if short:
            self._env["NUMBA_DISABLE_JIT"] = "1"  # the same bytes; compiling takes longer than all that is done here
            here = sysconfig.get_path("purelib", vars={"base": str(base / "venv")})
            # A path, and no site folder: what an editable install of this repository put there is not read.
            (Path(here) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
            self.do("wheel", self.bin / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
        else:
            self.do("wheel and extras", self.bin / "pip", "install", "-q", f"{wheel}[demo,privacy,search,serve]")
            self.do("to run notebooks", self.bin / "pip", "install", "-q", "nbclient", "ipykernel")
        where = self.do("where it is", self.bin / "python", "-c", "import fl_mobile; print(fl_mobile.__file__)")
        if not where.startswith(str(base)):
            raise SystemExit(f"the wheel is not what is imported: {where}")

    def do(self, name: str, *command: str | Path) -> str:
        """Runs a command in the folder, tells how long it took, and returns its stdout."""
        begun = time.monotonic()
        words = [str(part) for part in command]
        done = subprocess.run(words, cwd=self.folder, env=self._env, capture_output=True, text=True)
        told = done.stdout + done.stderr
        if done.returncode or "Traceback" in done.stderr:
            raise SystemExit(f"{name} ended with code {done.returncode}:\n{' '.join(words)[:300]}\n{told[-3000:]}")
        print(f"{time.monotonic() - begun:6.1f} s  {name}", flush=True)
        return done.stdout

    def python(self, name: str, text: str, *arguments: str | Path) -> str:
        """Runs lines of Python."""
        return self.do(name, self.bin / "python", "-c", text, *arguments)

    def verb(self, *words: str | Path) -> str:
        """Runs ``fl-mobile``."""
        return self.do(f"fl-mobile {words[0]}", self.bin / "fl-mobile", *words)


def build_wheel(folder: Path) -> Path:
    """Returns the wheel of this repository, built into ``folder``."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("fl_mobile-*.whl"))


def readme_lines() -> str:
    """Returns the Python of README."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def install_plugin(newcomer: Newcomer) -> tuple[dict[str, str], dict[str, str]]:
    """Makes a package with a row of every kind, as somebody outside writes one, and installs it.

    Returns:
        Row → its kind, and key of an experiment → row.
    """
    package = newcomer.folder / PLUGIN
    package.mkdir()
    module = package / f"{MODULE}.py"
    module.write_text(
        (ROOT / "tests" / "device_sim" / "check" / "mine.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    told = newcomer.python("what is in a package of one's own", TELL, package)
    kinds, keys = json.loads(told)
    points = "".join(
        f'[project.entry-points."fl_mobile.{kind}"]\nzoes-{kind} = "{MODULE}:{name}"\n'
        for name, kind in kinds.items()
        if kind not in ("model", "stage")  # a function, and a part of a chain, are named as package.module:name
    )
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{PLUGIN}"\nversion = "1.0"\n{points}'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["{MODULE}.py"]\n',
        encoding="utf-8",
    )
    newcomer.do(
        "its installation",
        newcomer.bin / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-cache-dir",
        package,
    )
    return kinds, keys


def use_plugin(newcomer: Newcomer, kinds: dict[str, str], keys: dict[str, str]) -> None:
    """Checks each row, and plays two rounds in which every key names one, by its entry point."""
    newcomer.python("the laws of every kind", KINDS)
    named = {key: f"zoes-{kinds[name]}" for key, name in keys.items() if key != "upload.codec"}
    named |= {"upload.codec": f"{MODULE}:HALVES+deflate", "model.name": f"{MODULE}:build"}
    named |= {"output.recipes": '["zoes-recipe"]', "output.metrics": '["zoes-metric"]', "output.keep-by": "zoes-metric"}
    small = {"server.damping": "0.25", "data.devices": "8", "train.cohort": "6", "train.rounds": "2"}
    small |= {"train.epochs": "1", "attack.name": "zoes-attack", "engine.name": "keras", "engine.workers": "1"}
    words = [word for key, value in (named | small).items() for word in ("--set", f"{key}={value}")]
    newcomer.verb("simulate", "--out", "runs/parts of one's own", "-q", *words)
    newcomer.verb("verify", "runs/parts of one's own", "--trust-code")


def main(arguments: Sequence[str]) -> int:
    """Returns 0, or ends with what failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--short", action="store_true", help="other packages from this environment, no tutorials")
    parser.add_argument("--wheel", type=Path, help="default: built from this repository")
    parser.add_argument("--tutorial", action="append", help="these alone; repeatable")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fl-mobile-newcomer-") as made:
        wheel = given.wheel.resolve() if given.wheel else build_wheel(Path(made))
        newcomer = Newcomer(Path(made).resolve(), wheel, given.short)
        newcomer.verb("doctor")
        newcomer.verb("new", "mein Anfang")
        lines = newcomer.folder / "zehn Zeilen.py"
        lines.write_text(readme_lines(), encoding="utf-8")
        told = newcomer.do("the Python lines of README", newcomer.bin / "python", lines).strip().splitlines()
        if len(told) != 8 + 3:
            raise SystemExit(f"README's lines: expected eight rounds and a table of two codecs, got {told}")
        newcomer.verb("verify", "digits-bundle")
        use_plugin(newcomer, *install_plugin(newcomer))
        pages = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
        for page in pages if not given.short or given.tutorial else []:
            if not given.tutorial or page.stem in given.tutorial:
                newcomer.python(f"tutorial {page.stem}", TUTORIAL, page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
