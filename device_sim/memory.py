"""What outlives a round beside the server's state: residuals and versions of devices, the upload step, the last mean.

Small things go into the checkpoint; tensors lie on a `Shelf`, one file each, in the run folder. A round only ever adds
files of its own number, so going back to a checkpoint means deleting the files of later rounds.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.errors import RunError
from fl_mobile.files import replace_atomic
from fl_mobile.tensors import Tensors


@dataclass(frozen=True)
class Shelf:
    """Tensors on disk by (what, round): ``memory/<what>.<round>.npz``; memory does not grow with devices or rounds."""

    path: Path

    def put(self, what: str, round_num: int, tensors: Tensors) -> None:
        """Stores tensors a round has made; playing the round again writes the same bytes."""
        arrays = {str(i): value for i, value in enumerate(tensors.values())}
        names = np.frombuffer("\n".join(tensors).encode(), np.uint8)
        replace_atomic(self.path / f"{what}.{round_num}.npz", lambda tmp: np.savez(tmp, names=names, **arrays))  # type: ignore[arg-type]

    def get(self, what: str, before: int) -> Tensors | None:
        """Returns the newest tensors made before round ``before``, or None.

        Raises:
            RunError: The file is damaged.
        """
        rounds = [r for r in self._rounds(what) if r < before]
        return self.get_exactly(what, max(rounds)) if rounds else None

    def get_exactly(self, what: str, round_num: int) -> Tensors | None:
        """Returns the tensors one round made, or None if they are not kept."""
        path = self.path / f"{what}.{round_num}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                names = file["names"].tobytes().decode().split("\n")
                return {name: file[str(i)] for i, name in enumerate(names)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path}: damaged ({error}); restore it from a copy, or start again with another --out"
            ) from None

    def forget(self, what: str, before: int, *, keep: int) -> None:
        """Deletes all but the newest ``keep`` files made before round ``before``."""
        for old in sorted(r for r in self._rounds(what) if r < before)[:-keep]:
            (self.path / f"{what}.{old}.npz").unlink(missing_ok=True)

    def rewind(self, round_num: int) -> None:
        """Deletes what rounds from ``round_num`` on have made: they will be played again."""
        for path in self.path.glob("*.npz"):
            if (found := re.fullmatch(r"[\w-]+\.(\d+)\.npz", path.name)) and int(found[1]) >= round_num:
                path.unlink()

    def _rounds(self, what: str) -> list[int]:
        return [int(path.name.split(".")[1]) for path in self.path.glob(f"{what}.*.npz")]


@dataclass
class FleetMemory:
    """Mutable state of one run; `as_json` goes into every checkpoint.

    Attributes:
        shelf: Residuals (``residual-<device>``), broadcast points (``point``) and mean updates (``mean``).
        versions: Device → model version it holds; devices not listed hold version 0, which ships with the app.
        upload_step: Step of the upload codec under rate control, else None.
    """

    shelf: Shelf
    versions: dict[int, int] = field(default_factory=dict)
    upload_step: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns what the checkpoint keeps."""
        return {"versions": {str(d): v for d, v in sorted(self.versions.items())}, "upload_step": self.upload_step}

    def restore(self, kept: dict[str, Any], round_num: int) -> None:
        """Goes back to what a checkpoint kept before round ``round_num``."""
        self.versions = {int(d): int(v) for d, v in kept.get("versions", {}).items()}
        self.upload_step = kept.get("upload_step", self.upload_step)
        self.shelf.rewind(round_num)
