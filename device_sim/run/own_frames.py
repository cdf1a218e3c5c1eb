"""A user's own frames in one ``.npz`` file: one array an input, classes where there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_sim.datasets.records import check_array_bytes
from fl_mobile.errors import DataError
from fl_mobile.storage.npz import Header, read_arrays


def read_frames(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the file at ``path``; each has a row a frame.

    Raises:
        DataError: It is not there, damaged, holds no frames, or arrays of several lengths.
    """

    def check(header: Header) -> None:
        if not header.shape or header.dtype.kind not in "uifb":
            raise DataError(f"{path}: '{header.name}' is {header.dtype}{header.shape}, expected numbers [n, ...]")
        check_array_bytes(f"{path}: '{header.name}'", header.shape, header.dtype.itemsize)

    try:
        arrays = read_arrays(path, check=check)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...).") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
        raise DataError(f"{path}: expected two or more frames, a row of every array for each, got {lengths}")
    return arrays
