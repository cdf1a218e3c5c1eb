"""A user's own arrays in one ``.npz`` file; never unpickled, and sized up before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets.npz_ends import check_exact, heads_in, inputs_in, named, several
from device_sim.datasets.records import Dataset, Ends, LoadRequest, Samples, check_array_bytes, make_dataset
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import ConfigError, DataError, nearest
from fl_mobile.storage.npz import Header, read_arrays
from fl_mobile.tasks import AUTO, MULTI_HEAD, decide, prepared, task_row
from fl_mobile.tasks.table import CLASSES, RECONSTRUCTION
from fl_mobile.tasks.targets import rebuilt
from fl_mobile.tasks.weighted import checked_weights

_ONE_TARGET = "{}: one target 'y' has no heads; save several as y.<name>, or leave task.heads out"
_KEYS = ("x", "y", "x_test", "y_test", "device", "labels", "weight", "weight_test")
_WHOLE = ("device", "weight", "weight_test")
"""Arrays that several inputs or targets have one of."""


def load_npz(request: LoadRequest) -> Dataset:
    """Returns the arrays of the file at ``request.path``.

    Keys: ``x`` and ``y`` (integer classes from 0, or what another task has, see `fl_mobile.tasks`; without ``y`` inputs
    are to be rebuilt); optionally ``x_test`` and ``y_test`` (else a seeded split per
    class), ``device`` (integer or text ``[n]``: who holds each training example), ``labels`` (text ``[classes]``), and
    ``weight`` and ``weight_test`` (numbers ``[n]``: what an example weighs; of a test part without, 1).
    ``uint8`` inputs are pixels, ``uint8[n, height, width]`` gets one channel; other numbers become float32.
    Several inputs are ``x.<name>``, several targets ``y.<name>`` (with ``labels.<name>``): see `npz_ends`.
    """
    path = request.path
    if path is None:
        raise DataError(
            "npz: no file named. Give the .npz file as path; keys: x, y[, x_test, y_test][, device][, labels]."
        )
    arrays = _read(path)
    if several(arrays):
        return _load_several(path, arrays, request)
    if request.task == MULTI_HEAD or request.heads:
        raise ConfigError(_ONE_TARGET.format(path))
    task, why = _task(path, arrays, request.task)
    x, y = _pair(path, arrays, ("x", "y"), task)
    device_of = _devices(path, arrays["device"], len(y)) if "device" in arrays else None
    weight, weight_test = _weights(path, arrays, len(y))
    tests = {"x_test", "y_test"} & arrays.keys()
    if not tests:
        labels = _labels(path, arrays, task, [y])
        return split_dataset(
            path.stem,
            x,
            y,
            labels=labels,
            request=request,
            source=str(path),
            device_of=device_of,
            task=task,
            why=why,
            weight=weight,
        )
    if task == RECONSTRUCTION and "x_test" in tests:
        tests |= {"y_test"}
    if len(tests) == 1:
        raise DataError(f"{path}: holds {tests.pop()} alone; x_test and y_test come together.")
    x_test, y_test = _pair(path, arrays, ("x_test", "y_test"), task)
    labels = _labels(path, arrays, task, [y, y_test])
    train, test = Samples(x, y, weight), Samples(x_test, y_test, weight_test)
    return make_dataset(path.stem, train, test, labels, source=str(path), device_of=device_of, task=task, why=why)


def _load_several(path: Path, arrays: dict[str, np.ndarray], request: LoadRequest) -> Dataset:
    """Returns a file of several inputs or targets, joined."""
    tested = any(name.startswith(("x_test", "y_test")) for name in arrays)
    xs, ys = (["x", "x_test"], ["y", "y_test"]) if tested else (["x"], ["y"])
    for key in (*xs, *ys):
        others = list(named(arrays, key))
        if others and key in arrays:
            raise DataError(f"{path}: holds '{key}' and '{key}.{others[0]}': one or the other.")
        if key not in arrays and not others:
            raise DataError(f"{path}: no array '{key}'; {', '.join((*xs, *ys))} come together.")
    y, names, about = _several_targets(path, arrays, ys, request)
    if named(arrays, "x"):
        x, ports = inputs_in(path, arrays, xs)
    else:
        x, ports = [_one_input(path, key, arrays[key]) for key in xs], ()
    for inputs, targets, one, other in zip(x, y, xs, ys, strict=True):
        if len(inputs) != len(targets):
            raise DataError(f"{path}: '{one}' has {len(inputs)} examples, '{other}' {len(targets)}.")
    device_of = _devices(path, arrays["device"], len(y[0])) if "device" in arrays else None
    weights = _weights(path, arrays, *(len(targets) for targets in y))
    about |= {"ends": replace(about["ends"], ports=ports), "source": str(path), "device_of": device_of}
    if not tested:
        return split_dataset(path.stem, x[0], y[0], labels=names, request=request, weight=weights[0], **about)
    train, test = (Samples(*three) for three in zip(x, y, weights, strict=True))
    return make_dataset(path.stem, train, test, names, **about)


def _several_targets(
    path: Path, arrays: dict[str, np.ndarray], keys: list[str], request: LoadRequest
) -> tuple[list[np.ndarray], tuple[str, ...], dict[str, Any]]:
    """Returns the targets of each part, the labels of a lone one, and task, reason and ends by their names."""
    heads = [f"y.{name}" for name in named(arrays, "y")]
    if not heads and (request.task == MULTI_HEAD or request.heads):
        raise ConfigError(_ONE_TARGET.format(path))
    if not heads:
        task, why = _task(path, arrays, request.task)
        targets = [_targets(path, key, arrays[key], task) for key in keys]
        return targets, _labels(path, arrays, task, targets), {"task": task, "why": why, "ends": Ends()}
    if request.task not in (AUTO, MULTI_HEAD):
        raise ConfigError(
            f"task.name '{request.task}' has one target, {path} holds {', '.join(heads)}: task.name ="
            f' "{MULTI_HEAD}", and what each is with task.heads'
        )
    targets, task, why, labels = heads_in(path, arrays, keys, request.heads)
    return targets, (), {"task": task, "why": why, "ends": Ends(labels=labels)}


def _one_input(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    x = _inputs(path, key, x, tokens=False)
    if x.ndim < 2:
        raise DataError(f"{path}: '{key}' is {x.shape}; expected [n, ...].")
    return x


def read_examples(path: Path) -> Samples:
    """Returns ``x`` and ``y`` of the file at ``path``, whole: nothing is held out.

    Raises:
        DataError: It is not there, damaged, or holds something else.
    """
    arrays = _read(path)
    if several(arrays):
        raise DataError(f"{path}: holds several inputs or targets; here x and y alone are read.")
    return Samples(*_pair(path, arrays, ("x", "y"), _task(path, arrays, AUTO)[0]))


def _read(path: Path) -> dict[str, np.ndarray]:
    def check(header: Header) -> None:
        key, _, end = header.name.partition(".")
        if key not in _KEYS or ("." in header.name and (key in _WHOLE or not end.isidentifier())):
            raise DataError(f"{path}: unknown array '{header.name}'.{nearest(header.name, _KEYS)}")
        check_array_bytes(f"{path}: '{header.name}'", header.shape, header.dtype.itemsize)

    try:
        arrays = read_arrays(path, check=check)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...).") from error
    if "x" not in arrays and not named(arrays, "x"):
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
    check_exact(f"{path}: '{key}'", x)
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


def _weights(
    path: Path, arrays: dict[str, np.ndarray], count: int, tested: int | None = None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns what examples of both parts weigh, None of both where the file says nothing of it."""
    tested = len(arrays["x_test"]) if tested is None and "x_test" in arrays else tested
    if "weight_test" in arrays and ("weight" not in arrays or tested is None):
        raise DataError(f"{path}: holds weight_test alone; it comes with 'weight' and with x_test.")
    if "weight" not in arrays:
        return None, None
    weight = checked_weights(f"{path}: 'weight'", arrays["weight"], count)
    if tested is None or "weight_test" not in arrays:
        return weight, None if tested is None else np.ones(tested, np.float32)
    return weight, checked_weights(f"{path}: 'weight_test'", arrays["weight_test"], tested)


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
        return x, rebuilt(x)
    y = _targets(path, second, arrays[second], task)
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"{path}: '{first}' is {x.shape} and '{second}' is {y.shape}; expected [n, ...] and [n].")
    return x, y


def _targets(path: Path, key: str, y: np.ndarray, task: str) -> np.ndarray:
    try:
        return prepared(task, y)
    except DataError as error:
        raise DataError(f"{path}: '{key}' is {error}.") from None
