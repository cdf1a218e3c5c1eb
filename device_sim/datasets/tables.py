"""scikit-learn's tables of real people: small, offline, and the usual first try of a federation of hospitals."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from device_sim.datasets.extras import require
from device_sim.datasets.records import Dataset, LoadRequest
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError


def load_breast_cancer(request: LoadRequest) -> Dataset:
    """Returns 569 tumours ``float32[n, 30]`` and whether each is benign (1). Source: Wolberg et al., UCI 1995."""
    folder = require("sklearn", "breast-cancer") / "datasets" / "data"
    table = _numbers(folder / "breast_cancer.csv", ",", (569, 31), head=1)
    return split_dataset(
        name="breast-cancer",
        x=table[:, :-1].astype(np.float32),
        y=table[:, -1].astype(np.int64),
        labels=("malignant", "benign"),
        request=request,
        source="scikit-learn package",
    )


def load_diabetes(request: LoadRequest) -> Dataset:
    """Returns 442 patients ``float32[n, 10]`` and how far the disease went in a year. Source: Efron et al. 2004."""
    folder = require("sklearn", "diabetes") / "datasets" / "data"
    y = _numbers(folder / "diabetes_target.csv.gz", None, (442, 1))
    return split_dataset(
        name="diabetes",
        x=_numbers(folder / "diabetes_data_raw.csv.gz", None, (442, 10)).astype(np.float32),
        y=y.astype(np.float32),
        labels=("progression",),
        request=request,
        source="scikit-learn package",
        task="regression",
        why="the dataset measures progression",
    )


def _numbers(path: Path, delimiter: str | None, shape: tuple[int, int], head: int = 0) -> np.ndarray:
    try:
        data = path.read_bytes()
        text = io.BytesIO(gzip.decompress(data) if path.suffix == ".gz" else data)
        table = np.loadtxt(text, delimiter=delimiter, skiprows=head, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}. Reinstall: pip install --force-reinstall scikit-learn"
        ) from error
    if table.shape != shape:
        raise DataError(f"{path}: expected {shape[0]} rows of {shape[1]} numbers, got {table.shape}.")
    return table
