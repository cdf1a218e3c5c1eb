"""A user's own arrays in one ``.npz`` file; never unpickled, and sized up before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device_sim.datasets.records import Dataset, LoadRequest, Samples, check_array_bytes, make_dataset
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError, nearest
from fl_mobile.storage.npz import Header, read_arrays
from fl_mobile.tasks import AUTO, decide, prepared, task_row
from fl_mobile.tasks.table import CLASSES, RECONSTRUCTION

_KEYS = ("x", "y", "x_test", "y_test", "device", "labels")


def load_npz(request: LoadRequest) -> Dataset:
    """Returns the arrays of the file at ``request.path``.

    Keys: ``x`` and ``y`` (integer classes from 0, or what another task has, see `fl_mobile.tasks`; without ``y`` inputs
    are to be rebuilt); optionally ``x_test`` and ``y_test`` (else a seeded split per
    class), ``device`` (integer or text ``[n]``: who holds each training example) and ``labels`` (text ``[classes]``).
    ``uint8`` inputs are pixels, ``uint8[n, height, width]`` gets one channel; other numbers become float32.
    """
    path = request.path
    if path is None:
        raise DataError(
            "npz: no file named. Give the .npz file as path; keys: x, y[, x_test, y_test][, device][, labels]."
        )
    arrays = _read(path)
    task, why = _task(path, arrays, request.task)
    x, y = _pair(path, arrays, ("x", "y"), task)
    device_of = _devices(path, arrays["device"], len(y)) if "device" in arrays else None
    tests = {"x_test", "y_test"} & arrays.keys()
    if not tests:
        labels = _labels(path, arrays, task, [y])
        return split_dataset(
            path.stem, x, y, labels=labels, request=request, source=str(path), device_of=device_of, task=task, why=why
        )
    if task == RECONSTRUCTION and "x_test" in tests:
        tests |= {"y_test"}
    if len(tests) == 1:
        raise DataError(f"{path}: holds {tests.pop()} alone; x_test and y_test come together.")
    x_test, y_test = _pair(path, arrays, ("x_test", "y_test"), task)
    labels = _labels(path, arrays, task, [y, y_test])
    train, test = Samples(x, y), Samples(x_test, y_test)
    return make_dataset(path.stem, train, test, labels, source=str(path), device_of=device_of, task=task, why=why)


def read_examples(path: Path) -> Samples:
    """Returns ``x`` and ``y`` of the file at ``path``, whole: nothing is held out.

    Raises:
        DataError: It is not there, damaged, or holds something else.
    """
    arrays = _read(path)
    return Samples(*_pair(path, arrays, ("x", "y"), _task(path, arrays, AUTO)[0]))


def _read(path: Path) -> dict[str, np.ndarray]:
    def check(header: Header) -> None:
        if header.name not in _KEYS:
            raise DataError(f"{path}: unknown array '{header.name}'.{nearest(header.name, _KEYS)}")
        check_array_bytes(f"{path}: '{header.name}'", header.shape, header.dtype.itemsize)

    try:
        arrays = read_arrays(path, check=check)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...).") from error
    if "x" not in arrays:
        raise DataError(f"{path}: no array 'x'. It holds: {', '.join(sorted(arrays)) or 'nothing'}.")
    return arrays


def _inputs(path: Path, key: str, x: np.ndarray, *, tokens: bool) -> np.ndarray:
    if tokens and x.dtype.kind in "iu" and x.size and x.min() >= -(2**31) and x.max() < 2**31:
        return x.astype(np.int32)
    if x.dtype == np.uint8:
        return x[..., None] if x.ndim == 3 else x
    if x.dtype.kind not in "iuf":
        raise DataError(f"{path}: '{key}' is {x.dtype}, expected uint8 pixels or numbers.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, which Samples refuses
        narrow = x.astype(np.float32)
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > 2**24:
        raise DataError(f"{path}: '{key}' holds integers beyond 2^24, which float32 cannot hold exactly.")
    return narrow


def _task(path: Path, arrays: dict[str, np.ndarray], wanted: str) -> tuple[str, str]:
    """Returns the task of the targets, and why it is that."""
    if "y" not in arrays and wanted not in (AUTO, RECONSTRUCTION):
        raise DataError(f"{path}: no array 'y'. It holds: {', '.join(sorted(arrays)) or 'nothing'}.")
    if wanted != AUTO:
        return wanted, "task.name says so"
    if "y" not in arrays and "y_test" in arrays:
        raise DataError(f"{path}: holds y_test alone; x and y, x_test and y_test come together.")
    try:
        return decide(arrays.get("y"))
    except DataError as error:
        raise DataError(f"{path}: 'y' is {error}.") from None


def _devices(path: Path, device: np.ndarray, count: int) -> np.ndarray:
    if device.dtype.kind not in "iuU" or device.shape != (count,):
        raise DataError(f"{path}: 'device' is {device.dtype}{device.shape}, expected integers or text [{count}].")
    numbers = np.unique(device, return_inverse=True)[1] if device.dtype.kind == "U" else device
    return numbers.astype(np.int64)


def _labels(path: Path, arrays: dict[str, np.ndarray], task: str, parts: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Returns the names of classes, tags or numbers, numbered where the file has none."""
    if "labels" not in arrays:
        if task == RECONSTRUCTION:
            return ()
        if task_row(task).kind != CLASSES:
            return tuple(str(i) for i in range(parts[0].shape[1])) if parts[0].ndim == 2 else ()
        highest = max(int(part.max(initial=0)) for part in parts)
        if highest > 10**5:  # a regression target or an id given as class would build a model this wide
            raise DataError(
                f"{path}: classes run up to {highest}. Number them from 0, or add 'labels';"
                ' if they are measures, task.name = "regression".'
            )
        return tuple(str(i) for i in range(highest + 1))
    labels = arrays["labels"]
    if labels.dtype.kind != "U" or labels.ndim != 1:
        raise DataError(f"{path}: 'labels' is {labels.dtype}{labels.shape}, expected text [classes].")
    return tuple(labels.tolist())


def _pair(
    path: Path, arrays: dict[str, np.ndarray], names: tuple[str, str], task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs ``[n, ...]`` and their targets ``[n, ...]``; of a reconstruction the inputs from 0 to 1."""
    first, second = names
    x = _inputs(path, first, arrays[first], tokens=task == "sequence")
    if task == RECONSTRUCTION:
        return x, x.astype(np.float32) * np.float32(1 / 255 if x.dtype == np.uint8 else 1)
    try:
        y = prepared(task, arrays[second])
    except DataError as error:
        raise DataError(f"{path}: '{second}' is {error}.") from None
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"{path}: '{first}' is {x.shape} and '{second}' is {y.shape}; expected [n, ...] and [n].")
    return x, y
