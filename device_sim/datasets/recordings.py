"""Recordings of sensors, cut into windows that overlap; a user's own lie in a folder, one file a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from device_sim.datasets.csv_table import read_numbers
from device_sim.datasets.folders import coded, files_by_device_and_class, layout
from device_sim.datasets.records import Dataset, LoadRequest, check_array_bytes
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError
from fl_mobile.storage.npz import read_array

WINDOW = 128
"""Samples of a window where ``data.window`` says nothing: 2.56 s at 50 Hz (Anguita et al. 2013)."""

_KINDS = "csv|npy"


def window_and_hop(request: LoadRequest) -> tuple[int, int]:
    """Returns how many samples a window has, and how many later the next one begins: half of it by default."""
    window = request.options.window or WINDOW
    return window, request.options.hop or max(1, window // 2)


def windows_of(signal: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Returns ``[n, window, channels]``: every ``hop`` samples of ``signal`` ``[samples, channels]`` one begins.

    What is left behind the last whole window is not used.

    >>> windows_of(np.arange(5)[:, None], 3, 2)[:, :, 0].tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    count = max(0, (len(signal) - window) // hop + 1)
    starts = np.arange(count) * hop
    return signal[starts[:, None] + np.arange(window)]


def load_sequence_folder(request: LoadRequest) -> Dataset:
    """Returns the recordings of ``root/<device>/<class>/*.csv|npy`` with ``root`` as path: ``float32[n, window, c]``.

    A ``.csv`` has a line of names and a line for each sample, a ``.npy`` is ``[samples, channels]``; all have the same
    channels. Test windows are drawn like all others, so two that overlap may be on either side.

    Raises:
        DataError: A file cannot be read, has other channels or is shorter than a window; the file is named.
    """
    root, (window, hop) = request.path, window_and_hop(request)
    if root is None or not root.is_dir():
        raise DataError(f"sequence-folder: {root or 'no path given'} is not a folder; {layout(_KINDS)}.")
    files = files_by_device_and_class(root, (".csv", ".npy"), _KINDS)
    parts = list(_windows(files, window, hop))
    counts = [len(part) for part in parts]
    check_array_bytes(str(root), (sum(counts), *parts[0].shape[1:]), 4)
    labels, y, device_of = coded(files)
    return split_dataset(
        name=root.name,
        x=np.concatenate(parts),
        y=np.repeat(y, counts),
        labels=labels,
        request=request,
        source=f"recordings in {root}, windows of {window} samples, one every {hop}",
        device_of=np.repeat(device_of, counts),
    )


def _windows(files: Sequence[tuple[str, str, Path]], window: int, hop: int) -> Iterator[np.ndarray]:
    first: tuple[Path, int] | None = None
    for _, _, path in files:
        signal = _signal(path)
        first = first or (path, signal.shape[1])
        if signal.shape[1] != first[1]:
            raise DataError(f"{path}: {signal.shape[1]} channels, but {first[0]} has {first[1]}.")
        if len(signal) < window:
            raise DataError(
                f"{path}: {len(signal)} samples, shorter than a window of {window}. Set data.window to at most that, or"
                " leave the recording out."
            )
        yield windows_of(signal, window, hop)


def _signal(path: Path) -> np.ndarray:
    """Returns ``float32[samples, channels]``."""
    if path.suffix.lower() == ".csv":
        return read_numbers(path).astype(np.float32)
    try:
        signal = read_array(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npy file: {error}. Write it with numpy.save(...).") from error
    if signal.ndim != 2 or signal.dtype.kind not in "fiu" or not signal.size:
        raise DataError(f"{path}: expected numbers [samples, channels], got {signal.dtype}{signal.shape}.")
    check_array_bytes(str(path), signal.shape, 4)
    with np.errstate(over="ignore"):
        narrow = signal.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"{path}: {int((~np.isfinite(narrow)).sum())} numbers are NaN, Inf or beyond float32.")
    return narrow
