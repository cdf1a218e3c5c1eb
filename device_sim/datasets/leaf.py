"""Datasets in LEAF's JSON format, FEMNIST among them (Caldas et al. 2018, https://leaf.cmu.edu)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets.records import Dataset, LoadRequest, Samples, make_dataset
from fl_mobile.errors import DataError


def load_leaf(request: LoadRequest) -> Dataset:
    """Returns ``request.path/train/*.json`` and ``test/*.json``; LEAF's users are the natural devices.

    Inputs are lists of numbers: float32. 784 of them (FEMNIST) become ``(28, 28, 1)``. Users are numbered by name.
    """
    root = request.path
    if root is None or not root.is_dir():
        raise DataError(
            f"leaf: {root or 'no path given'} is not a folder; expected one with train/*.json and test/*.json."
        )
    users, train = _read_part(root / "train")
    _, test = _read_part(root / "test")
    count = int(max(train.y.max(), test.y.max())) + 1
    device_of = np.unique(users, return_inverse=True)[1].astype(np.int64)
    labels = tuple(str(i) for i in range(count))
    return make_dataset(root.name, train, test, labels, source=f"LEAF files in {root}", device_of=device_of)


def _read_part(folder: Path) -> tuple[list[str], Samples]:
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(f"{folder}: no .json files; a LEAF dataset has train/*.json and test/*.json.")
    users: list[str] = []
    inputs: list[Any] = []
    classes: list[Any] = []
    for path in files:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))["user_data"]
            for user, part in data.items():
                x, y = part["x"], part["y"]
                if len(x) != len(y):
                    raise DataError(f"{path}: user '{user}' has {len(x)} inputs but {len(y)} classes.")
                users += [user] * len(y)
                inputs += x
                classes += y
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a LEAF file with user_data/<user>/{{x, y}}: {error!r}.") from error
    return users, _samples(folder, inputs, classes)


def _samples(folder: Path, inputs: list[Any], classes: list[Any]) -> Samples:
    try:
        x, y = np.array(inputs, np.float32), np.array(classes)
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder}: inputs are not numbers of one shape: {error}.") from error
    if y.dtype.kind != "i" or y.ndim != 1:
        raise DataError(f"{folder}: classes are {y.dtype}{y.shape}, expected integers from 0.")
    return Samples(x.reshape(-1, 28, 28, 1) if x.shape[1:] == (784,) else x, y.astype(np.int64))
