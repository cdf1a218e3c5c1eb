"""scikit-learn's 8×8 digits, the smallest real images."""

from __future__ import annotations

import gzip
import io

import numpy as np

from device_sim.datasets.extras import require
from device_sim.datasets.mnist import DIGITS
from device_sim.datasets.records import Dataset, LoadRequest
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError


def load_digits(request: LoadRequest) -> Dataset:
    """Returns 1,797 digits ``uint8[n, 8, 8, 1]``, the published values 0..16 scaled to 0..255.

    Read from the wheel's file: importing scikit-learn takes longer than the parse. Source: Alpaydin & Kaynak, UCI 1998.
    """
    path = require("sklearn", "digits") / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}. Reinstall: pip install --force-reinstall scikit-learn"
        ) from (error)
    if table.shape != (1797, 65):
        raise DataError(f"{path}: expected 1797 rows of 64 pixels and a class, got {table.shape}.")
    x = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return split_dataset(
        name="digits",
        x=x,
        y=table[:, -1].astype(np.int64),
        labels=DIGITS,
        request=request,
        source="scikit-learn package",
    )
