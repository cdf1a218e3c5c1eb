"""What reference clients hold: one ``.npz`` file a client, with ``x`` and ``y``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_sim.client_data.data import DeviceData
from fl_mobile.errors import DataError
from fl_mobile.storage.npz import read_arrays, write_arrays


@dataclass(frozen=True)
class Examples:
    """One client's: ``x[n, …]`` and ``y`` ``int64[n]``."""

    name: str
    x: np.ndarray
    y: np.ndarray


def deal(data: DeviceData, folder: Path) -> int:
    """Writes what each simulated device holds as a client's file; returns how many."""
    for device in range(data.population):
        x, y = data.examples(device)
        write_arrays(folder / f"client-{device:06d}.npz", {"x": x, "y": y}, sync=False)
    return data.population


def read_examples(folder: Path, count: int) -> list[Examples]:
    """Returns the first ``count`` clients' examples, by name; from a single file, one client's.

    Raises:
        DataError: There are fewer, or a file does not hold examples.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.npz"))
    if len(files) < count:
        raise DataError(f"{folder} holds {len(files)} .npz files, one a client; --fleet {count} needs as many")
    return [_read(path) for path in files[:count]]


def _read(path: Path) -> Examples:
    try:
        arrays = read_arrays(path)
        x, y = arrays["x"], arrays["y"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: expected arrays 'x' and 'y' ({error})") from None
    if "weight" in arrays:
        raise DataError(f"{path}: holds 'weight', which the coordinator's program does not take: leave it out")
    if not len(y) or len(x) != len(y) or y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"{path}: expected as many whole labels as examples, at least one; got {x.shape} and {y.shape}")
    return Examples(path.stem, x, y.astype(np.int64))
