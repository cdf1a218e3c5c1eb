"""Tensors on disk, named by what they are and the round that made them, so that going back is deleting later files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from fl_mobile.errors import RunError
from fl_mobile.storage.files import sync_files
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Tensors

_FILE = re.compile(r"([\w-]+)\.(\d+)\.npz")


class Shelf:
    """Tensors on disk by (what, round): ``memory/<what>.<round>.npz``; memory does not grow with devices or rounds.

    The folder is listed once and belongs to this object from then on: a listing per device and round would be
    quadratic in the population.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rounds: dict[str, list[int]] | None = None
        self._unsynced: set[Path] = set()

    def put(self, what: str, round_num: int, tensors: Tensors) -> None:
        """Stores tensors a round has made; playing the round again writes the same bytes.

        A loss of power may take them until `sync`, and with them nothing: until the checkpoint that comes after it,
        a restart deletes them and plays the round again.
        """
        arrays = {str(i): value for i, value in enumerate(tensors.values())}
        names = np.frombuffer("\n".join(tensors).encode(), np.uint8)
        path = self._file(what, round_num)
        write_arrays(path, {"names": names, **arrays}, sync=False)
        self._unsynced.add(path)
        rounds = self._index().setdefault(what, [])
        if round_num not in rounds:
            rounds.append(round_num)

    def replace(self, what: str, round_num: int, tensors: Tensors) -> None:
        """Stores tensors in place of those of earlier rounds, of which the newest is kept for a restart."""
        self.put(what, round_num, tensors)
        self.forget(what, before=round_num, keep=1)

    def newest(self, what: str) -> Tensors | None:
        """Returns the newest tensors, or None."""
        rounds = self._index().get(what)
        return self.get_exactly(what, max(rounds)) if rounds else None

    def get(self, what: str, before: int) -> Tensors | None:
        """Returns the newest tensors made before round ``before``, or None.

        Raises:
            RunError: The file is damaged.
        """
        rounds = [r for r in self._index().get(what, ()) if r < before]
        return self.get_exactly(what, max(rounds)) if rounds else None

    def get_exactly(self, what: str, round_num: int) -> Tensors | None:
        """Returns the tensors one round made, or None if they are not kept."""
        if round_num not in self._index().get(what, ()):
            return None
        path = self._file(what, round_num)
        try:
            arrays = read_arrays(path)
            names = arrays["names"].tobytes().decode()
            return {name: arrays[str(i)] for i, name in enumerate(names.split("\n") if names else ())}
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise RunError(
                f"{path}: damaged ({error}); restore it from a copy, or start again with another --out"
            ) from None

    def forget(self, what: str, before: int, *, keep: int) -> None:
        """Deletes all but the newest ``keep`` files made before round ``before``."""
        for old in sorted(r for r in self._index().get(what, ()) if r < before)[:-keep]:
            self._delete(what, old)

    def sync(self) -> None:
        """Makes what was stored outlast a loss of power; to be called before the checkpoint that counts on it."""
        sync_files(sorted(self._unsynced))
        self._unsynced.clear()

    def rewind(self, round_num: int) -> None:
        """Deletes what rounds from ``round_num`` on have made: they will be played again."""
        for what, rounds in self._index().items():
            for late in [r for r in rounds if r >= round_num]:
                self._delete(what, late)

    def _delete(self, what: str, round_num: int) -> None:
        path = self._file(what, round_num)
        path.unlink(missing_ok=True)
        self._unsynced.discard(path)
        self._index()[what].remove(round_num)

    def _file(self, what: str, round_num: int) -> Path:
        return self.path / f"{what}.{round_num}.npz"

    def _index(self) -> dict[str, list[int]]:
        if self._rounds is None:
            rounds: dict[str, list[int]] = {}
            # Not glob: on some versions of Python it takes a folder that cannot be read for an empty one.
            for name in os.listdir(self.path) if self.path.is_dir() else ():
                if found := _FILE.fullmatch(name):
                    rounds.setdefault(found[1], []).append(int(found[2]))
            self._rounds = rounds
        return self._rounds
