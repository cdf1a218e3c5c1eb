"""Small files in every format the dataset loaders read."""

from __future__ import annotations

import copyreg
import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from device_sim.datasets.har import CHANNELS
from device_sim.datasets.mnist import IdxSet, data_folder

QMNIST = data_folder("qmnist") / "qmnist-train-labels-idx2-int.gz"


def idx_bytes(array: np.ndarray, kind: int = 0x08) -> bytes:
    big = array.astype({0x08: ">u1", 0x0C: ">i4"}[kind])
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


def write_idx_folder(folder: Path, *, compress: bool = False, dot: str = "-") -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 28, 28)), rng.integers(0, 10, 60)
    for part, rows in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        for kind, values in ((f"images{dot}idx3", x[rows]), (f"labels{dot}idx1", y[rows])):
            data = idx_bytes(values)
            name = f"{part}-{kind}-ubyte" + (".gz" if compress else "")
            (folder / name).write_bytes(gzip.compress(data) if compress else data)
    return x, y


def write_pictures(root: Path) -> None:
    from PIL import Image

    for device in range(3):
        for label, level in (("cat", 40), ("dog", 200)):
            for i in range(5):
                path = root / f"phone-{device}" / label / f"{i}.{'png' if i % 2 else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (12, 8), (level, device, i)).save(path)


def write_leaf(root: Path) -> None:
    for part, users in (("train", {"b": 3, "a": 2}), ("test", {"c": 2})):
        (root / part).mkdir(parents=True)
        data = {u: {"x": [[i / 10] * 784 for i in range(n)], "y": list(range(n))} for u, n in users.items()}
        (root / part / "all.json").write_text(json.dumps({"users": list(users), "user_data": data}))


def findable(idx_set: IdxSet) -> bool:
    """Whether the published files are on this machine (without asking the network)."""
    return any(Path(folder).is_dir() for folder in (data_folder(idx_set.name), *idx_set.folders))


def write_recordings(root: Path, *, samples: int = 200) -> None:
    """Three people, two activities, a ``.csv`` and a ``.npy`` each."""
    rng = np.random.default_rng(0)
    for person in ("ann", "bob", "eve"):
        for beat, name in enumerate(("sit", "walk")):
            (root / person / name).mkdir(parents=True)
            signal = beat * np.sin(np.arange(samples))[:, None] + rng.normal(size=(samples, 2)) / 10
            np.save(root / person / name / "one.npy", signal)
            lines = [",".join(f"{value:.4f}" for value in row) for row in signal]
            (root / person / name / "two.csv").write_text("\n".join(["x,y", *lines]))


def write_har(path: Path, people: Mapping[int, Sequence[int]], *, columns: Sequence[str] = CHANNELS) -> None:
    """An archive as HAPT's: data frames pickled by protocol 2; of each person the label of every sample."""
    frames = {}
    for person, labels in people.items():
        signal = np.arange(len(labels) * len(columns)).reshape(-1, len(columns)) / 8 + person
        frames[person] = [_Frame(signal, columns, np.asarray(labels))]
    with _pandas():
        packed = gzip.compress(pickle.dumps(frames, 2))
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("kcc/res/HAPT.pkl.gz")
        member.size = len(packed)
        archive.addfile(member, io.BytesIO(packed))


class _Frame:
    """Pickles as pandas 1.0 pickles a frame of floats and the integers ``sequence`` and ``label``."""

    def __init__(self, signal: np.ndarray, columns: Sequence[str], labels: np.ndarray) -> None:
        self.parts = signal, columns, labels

    def __reduce__(self) -> Any:
        signal, columns, labels = self.parts
        blocks = [np.ascontiguousarray(signal.T), np.asfortranarray(np.stack([labels * 0, labels]))]
        names = [_Index(columns), _Index(("sequence", "label"))]
        axes = [_Index((*columns, "sequence", "label")), None]
        frame = _class("pandas.core.frame", "DataFrame")
        return copyreg._reconstructor, (frame, object, None), {"_data": _Manager((axes, blocks, names, {}))}


class _Manager:
    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        blocks = _class("pandas.core.internals.managers", "BlockManager")
        return copyreg._reconstructor, (blocks, object, None), self.state


class _Index:
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __reduce__(self) -> Any:
        held = {"data": np.array(self.names, object), "name": None}
        return _class("pandas.core.indexes.base", "_new_Index"), (_class("pandas.core.indexes.base", "Index"), held)


def _class(module: str, name: str) -> Any:
    return getattr(sys.modules[module], name)


@contextmanager
def _pandas() -> Iterator[None]:
    """Modules of pandas' names while something is pickled; pickle looks every class up by its name."""
    named = {"pandas.core.frame": ["DataFrame"], "pandas.core.internals.managers": ["BlockManager"]}
    named["pandas.core.indexes.base"] = ["_new_Index", "Index"]
    named |= {key: [] for key in ("pandas", "pandas.core", "pandas.core.internals", "pandas.core.indexes")}
    before = {module: sys.modules.get(module) for module in named}
    for module, names in named.items():
        sys.modules[module] = ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
    try:
        yield
    finally:
        for module, was in before.items():
            if was is None:
                del sys.modules[module]
            else:
                sys.modules[module] = was
