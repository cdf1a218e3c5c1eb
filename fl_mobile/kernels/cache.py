"""Where compiled loops are kept: a folder for each version of their sources; old ones are cleared away."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

KEPT_FOLDERS, KEPT_SECONDS = 5, 7 * 24 * 3600.0
"""A folder goes when it is neither among so many used last nor was used within this time."""

_USES = re.compile(rb"^@compiled\b", re.MULTILINE)
_CODELESS = "fl_mobile.errors"
"""Machine code holds the names of these classes, never their code: a new message compiles nothing again."""


def loops_hash(package: Path) -> str:
    """Returns a hash of what compiled loops are made of: files with ``@compiled`` and what these import in the package.

    numba itself looks only at the file a function is in, not at those whose functions and constants it uses.

    Args:
        package: The folder of `fl_mobile`.
    """
    waiting = [path for path in package.rglob("*.py") if _USES.search(path.read_bytes())]
    waiting.append(package / "kernels" / "compiled.py")
    found: dict[str, bytes] = {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(package).as_posix()
        if name not in found:
            found[name] = path.read_bytes()
            waiting += _imported(package, found[name])
    digest = hashlib.sha256()
    for name, source in sorted(found.items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:12]


def _imported(package: Path, source: bytes) -> Iterator[Path]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == package.name and not name.startswith(_CODELESS):
                yield from _file_of(package, name)


def _file_of(package: Path, name: str) -> Iterator[Path]:
    parts = name.split(".")[1:]
    for count in (len(parts), len(parts) - 1):  # `a.b.c` is a module, or a name in one
        path = package.joinpath(*parts[:count])
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return
        if path != package and (path / "__init__.py").is_file():
            yield path / "__init__.py"
            return


def versioned(parent: Path, version: str) -> Path:
    """Returns how the folder of a version is called."""
    return parent / f"compiled-{version}"


def claim_folder(parents: Iterable[Path], version: str) -> str:
    """Returns the folder ``compiled-<version>`` in the first parent where it can be written, marked as used now.

    Old folders beside it are deleted. Empty if it can be written nowhere.
    """
    for parent in parents:
        folder = versioned(parent, version)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                os.utime(folder)
                _clear_old(parent)
                return str(folder)
    return ""


def _clear_old(parent: Path) -> None:
    used = {path: path.stat().st_mtime for path in parent.glob("compiled-*") if path.is_dir()}
    last_first = sorted(used, key=lambda path: -used[path])
    for path in last_first[KEPT_FOLDERS:]:
        if used[path] < time.time() - KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)  # numba makes the folder again if somebody still needs it
