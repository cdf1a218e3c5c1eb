"""Small files in every format the dataset loaders read."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np

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
