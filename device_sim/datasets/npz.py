"""A user's own arrays in one ``.npz`` file; never unpickled, and sized up before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_sim.datasets.records import Dataset, LoadRequest, Samples, check_array_bytes, make_dataset
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError, nearest
from fl_mobile.storage.npz import Header, read_arrays

_KEYS = ("x", "y", "x_test", "y_test", "device", "labels")


def load_npz(request: LoadRequest) -> Dataset:
    """Returns the arrays of the file at ``request.path``.

    Keys: ``x`` and ``y`` (integer classes from 0); optionally ``x_test`` and ``y_test`` (else a seeded split per
    class), ``device`` (integer or text ``[n]``: who holds each training example) and ``labels`` (text ``[classes]``).
    ``uint8`` inputs are pixels, ``uint8[n, height, width]`` gets one channel; other numbers become float32.
    """
    path = request.path
    if path is None:
        raise DataError(
            "npz: no file named. Give the .npz file as path; keys: x, y[, x_test, y_test][, device][, labels]."
        )
    arrays = _read(path)
    x, y = _pair(path, arrays, "x", "y")
    device_of = _devices(path, arrays["device"], len(y)) if "device" in arrays else None
    tests = {"x_test", "y_test"} & arrays.keys()
    highest = int(y.max(initial=0))
    if not tests:
        labels = _labels(path, arrays, highest)
        return split_dataset(
            name=path.stem, x=x, y=y, labels=labels, request=request, source=str(path), device_of=device_of
        )
    if len(tests) == 1:
        raise DataError(f"{path}: holds {tests.pop()} alone; x_test and y_test come together.")
    x_test, y_test = _pair(path, arrays, "x_test", "y_test")
    labels = _labels(path, arrays, max(highest, int(y_test.max(initial=0))))
    train, test = Samples(x, y), Samples(x_test, y_test)
    return make_dataset(path.stem, train, test, labels, source=str(path), device_of=device_of)


def read_examples(path: Path) -> Samples:
    """Returns ``x`` and ``y`` of the file at ``path``, whole: nothing is held out.

    Raises:
        DataError: It is not there, damaged, or holds something else.
    """
    return Samples(*_pair(path, _read(path), "x", "y"))


def _read(path: Path) -> dict[str, np.ndarray]:
    def check(header: Header) -> None:
        if header.name not in _KEYS:
            raise DataError(f"{path}: unknown array '{header.name}'.{nearest(header.name, _KEYS)}")
        check_array_bytes(f"{path}: '{header.name}'", header.shape, header.dtype.itemsize)

    try:
        arrays = read_arrays(path, check=check)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...).") from error
    for name in ("x", "y"):
        if name not in arrays:
            raise DataError(f"{path}: no array '{name}'. It holds: {', '.join(sorted(arrays)) or 'nothing'}.")
    return arrays


def _inputs(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        return x[..., None] if x.ndim == 3 else x
    if x.dtype.kind not in "iuf":
        raise DataError(f"{path}: '{key}' is {x.dtype}, expected uint8 pixels or numbers.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, which Samples refuses
        narrow = x.astype(np.float32)
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > 2**24:
        raise DataError(f"{path}: '{key}' holds integers beyond 2^24, which float32 cannot hold exactly.")
    return narrow


def _classes(path: Path, key: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"{path}: '{key}' is {y.dtype}{y.shape}, expected integer classes [n] from 0{_remedy(key, y)}.")
    return y.astype(np.int64)


def _remedy(key: str, y: np.ndarray) -> str:
    """Returns how labels of another shape or kind become classes, as far as they can."""
    if y.dtype.kind in "US":
        return f": save names, {key} = np.unique({key}, return_inverse=True), and the names as labels="
    if y.dtype.kind not in "iufb":
        return ""
    if y.ndim == 2 and y.shape[1] > 1:
        hot = bool(((y != 0).sum(axis=1) == 1).all())
        return f": it is one-hot, save {key}.argmax(axis=1)" if hot else ": several labels an example are not trained"
    flat = ".ravel()" if y.ndim > 1 and y.size == len(y) else ""
    if y.ndim > 1 and not flat:
        return ": one label an example"
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and np.array_equal(y, np.rint(y))):
        return ": it holds fractions, and regression is not trained"
    return f": save {key}{flat}" + (".astype('int64')" if y.dtype.kind not in "iu" else "")


def _devices(path: Path, device: np.ndarray, count: int) -> np.ndarray:
    if device.dtype.kind not in "iuU" or device.shape != (count,):
        raise DataError(f"{path}: 'device' is {device.dtype}{device.shape}, expected integers or text [{count}].")
    numbers = np.unique(device, return_inverse=True)[1] if device.dtype.kind == "U" else device
    return numbers.astype(np.int64)


def _labels(path: Path, arrays: dict[str, np.ndarray], highest: int) -> tuple[str, ...]:
    if "labels" not in arrays:
        if highest > 10**5:  # a regression target or an id given as class would build a model this wide
            raise DataError(f"{path}: classes run up to {highest}. Number them from 0, or add 'labels'.")
        return tuple(str(i) for i in range(highest + 1))
    labels = arrays["labels"]
    if labels.dtype.kind != "U" or labels.ndim != 1:
        raise DataError(f"{path}: 'labels' is {labels.dtype}{labels.shape}, expected text [classes].")
    return tuple(labels.tolist())


def _pair(path: Path, arrays: dict[str, np.ndarray], first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs ``[n, ...]`` and their classes ``int64[n]``."""
    x, y = _inputs(path, first, arrays[first]), _classes(path, second, arrays[second])
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"{path}: '{first}' is {x.shape} and '{second}' is {y.shape}; expected [n, ...] and [n].")
    return x, y
