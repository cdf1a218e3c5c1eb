"""Files of a folder for each device, with a folder for each class in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fl_mobile.errors import DataError

SHOWN = 10
"""Files that an error lists."""

_JUNK = ("Thumbs.db", "desktop.ini")


def layout(kinds: str) -> str:
    """Returns the layout in words; ``kinds`` are endings, e.g. ``"png|jpg"``."""
    return f"expected root/<device>/<class>/*.{kinds}"


def files_by_device_and_class(root: Path, suffixes: tuple[str, ...], kinds: str) -> list[tuple[str, str, Path]]:
    """Returns (device, class, file), sorted.

    Raises:
        DataError: There is none, or something else, which would be left out silently.
    """
    files, strange = [], []
    for device in _entries(root):
        for label in _entries(device) if device.is_dir() else [device]:
            for path in _entries(label) if label.is_dir() else [label]:
                if path.suffix.lower() in suffixes and path.is_file() and path.parent.parent.parent == root:
                    files.append((device.name, label.name, path))
                else:
                    strange.append(path)
    if strange:
        raise DataError(
            f"{root}: {layout(kinds)}; {len(strange)} entries are something else: {_some(strange, root)}. "
            "Move, convert or remove them."
        )
    if not files:
        raise DataError(f"{root}: no such files; {layout(kinds)}.")
    return files


def coded(files: Sequence[tuple[str, str, Path]]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Returns the names of the classes, ``int64[n]`` the class of every file and ``int64[n]`` its device, by name."""
    labels, y = np.unique([label for _, label, _ in files], return_inverse=True)
    device = np.unique([device for device, _, _ in files], return_inverse=True)[1]
    return tuple(labels.tolist()), y.astype(np.int64), device.astype(np.int64)


def _entries(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and p.name not in _JUNK)


def _some(paths: list[Path], root: Path) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(str(p.relative_to(root)) for p in paths[:SHOWN]) + more
