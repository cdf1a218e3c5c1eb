"""What reference clients hold: one ``.npz`` file a client, named inside as `device_sim.datasets.npz` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_sim.client_data.data import DeviceData
from device_sim.datasets import Dataset
from fl_mobile.errors import DataError
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tasks.table import RECONSTRUCTION


@dataclass(frozen=True)
class Examples:
    """One client's, as its file has them; what of it a program takes is told by the program: `rows_for`.

    Attributes:
        name: Of the client.
        arrays: ``x`` or ``x.<input>``; ``y`` or ``y.<head>``, nothing where inputs are to be rebuilt; ``weight`` where
            examples weigh. All ``[n, …]``.
    """

    name: str
    arrays: Mapping[str, np.ndarray]


def deal(dataset: Dataset, data: DeviceData, folder: Path) -> int:
    """Writes what each simulated device holds as a client's file; returns how many."""
    for device in range(data.population):
        path = folder / f"client-{device:06d}.npz"
        write_arrays(path, arrays_of(dataset, data, device), sync=False)
    return data.population


def arrays_of(dataset: Dataset, data: DeviceData, device: int) -> dict[str, np.ndarray]:
    """Returns what a simulated device holds, as its owner would save it."""
    x, y = data.examples(device)
    arrays = {f"x.{name}": part for name, part in dataset.inputs(x).items()} if dataset.ports else {"x": x}
    if dataset.heads:
        arrays |= {f"y.{name}": part for name, part in dataset.told(y).items()}
    elif dataset.task != RECONSTRUCTION:
        arrays["y"] = y
    weight = data.weights(device)
    return arrays if weight is None else {**arrays, "weight": weight}


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
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...)") from None
    held = {name: value for name, value in arrays.items() if name.partition(".")[0] in ("x", "y", "weight")}
    if not any(name.partition(".")[0] == "x" for name in held):
        raise DataError(f"{path}: no array 'x'. It holds: {', '.join(sorted(arrays)) or 'nothing'}")
    lengths = {name: len(value) if value.ndim else 0 for name, value in held.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        told = ", ".join(f"{name} {value.shape}" for name, value in held.items())
        raise DataError(f"{path}: expected as many examples in each array, at least one; got {told}")
    return Examples(path.stem, held)
