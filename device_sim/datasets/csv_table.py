"""A user's own table: one ``.csv`` file with a line of names; one column may be the device, one or more the targets."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_sim.datasets.npz_ends import heads_in, specs_of
from device_sim.datasets.records import Dataset, Ends, LoadRequest, check_array_bytes
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import ConfigError, DataError, nearest
from fl_mobile.tasks import AUTO, MULTI_HEAD, prepared, task_row
from fl_mobile.tasks.table import CLASSES, CLASSIFICATION, RECONSTRUCTION
from fl_mobile.tasks.weighted import checked_weights

DEVICE = "device"
FEW = 20
"""Whole numbers with at most so many different values are classes."""

_MISSING = frozenset({"", "na", "nan", "null", "none", "?"})


def load_csv(request: LoadRequest) -> Dataset:
    """Returns the table at ``request.path``: ``float32[n, features]`` and what ``data.target`` names.

    The device is in column ``data.device-column``, or in one called ``device``; what a row weighs is in
    ``data.weight-column``, if that is named. Texts in the target column are classes in alphabetical order, and so are
    whole numbers of at most `FEW` different values; other numbers are measures. With ``task.heads``, or task
    ``multi-head``, every target column is a head of its own.
    Missing cells of features that ``data.fill`` names are the number it says.

    Raises:
        DataError: It cannot be read, a column is not there, a cell is missing or no number; the line and column are
            named.
    """
    path = request.path
    if path is None:
        raise DataError("csv: no file named. Give the .csv file, whose first line names its columns, as path.")
    names, rows = _read(path)
    asked = request.options.device_column
    device = asked or (DEVICE if DEVICE in names else None)
    heavy = request.options.weight_column
    others = [name for name in names if name not in (device, heavy)]
    wanted = request.options.target or (others[-1:] if request.task != RECONSTRUCTION else [])
    for name in (*wanted, *([device] if device else []), *([heavy] if heavy else [])):
        if name not in names:
            raise DataError(f"{path}: no column '{name}'.{nearest(name, names)} It has: {', '.join(names)}.")
    features = [name for name in others if name not in wanted]
    if not features:
        raise DataError(f"{path}: no column is left for features; it has {', '.join(names)}.")
    fill = _fill(path, request.options.fill or (), features)
    x = _numbers(path, names, rows, features, fill=fill).astype(np.float32)
    labels: tuple[str, ...] = ()
    ends = None
    if request.task == MULTI_HEAD or request.heads:
        y, task, why, ends = _heads(path, request, wanted, names=names, rows=rows)
    else:
        task, why, y, labels = _targets(path, request.task, wanted, names=names, rows=rows, x=x)
    holders = [row[names.index(device)] for row in rows] if device else []
    dataset = split_dataset(
        name=path.stem,
        x=x,
        y=y,
        labels=labels,
        request=request,
        source=str(path),
        device_of=np.unique(holders, return_inverse=True)[1].astype(np.int64) if device else None,
        task=task,
        why=why,
        ends=ends,
        weight=_weights(path, names, rows, heavy) if heavy else None,
    )
    return replace(dataset, columns=tuple(features))


def read_numbers(path: Path) -> np.ndarray:
    """Returns ``float64[rows, columns]`` of a table of numbers alone.

    Raises:
        DataError: As of `load_csv`.
    """
    names, rows = _read(path)
    return _numbers(path, names, rows, names)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns and the cells of every row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as a .csv file: {error}. Save it as UTF-8, cells parted by commas."
        ) from error
    if len(lines) < 2:
        raise DataError(f"{path}: expected a line of names and at least one row, got {len(lines)} lines.")
    names = [name.strip() for name in lines[0]]
    twice = next((name for name in names if names.count(name) > 1 or not name), None)
    if twice is not None:
        raise DataError(f"{path}: the first line names column '{twice}' {'nowhere' if not twice else 'twice'}.")
    check_array_bytes(str(path), (len(lines), len(names)), 8)
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(names):
            raise DataError(f"{path}, line {number}: expected {len(names)} cells, as the first line, got {len(row)}.")
    return names, [[cell.strip() for cell in row] for row in lines[1:]]


def _fill(path: Path, given: Sequence[str], features: Sequence[str]) -> dict[str, float]:
    """Returns column → what its missing cells are."""
    found = {}
    for text in given:
        name, _, number = (part.strip() for part in text.rpartition("="))
        if name not in features:
            raise ConfigError(f"data.fill: {path} has no feature '{name}'.{nearest(name, features)}")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise ConfigError(f"data.fill: expected column=number, e.g. {name}=38.6, got '{text}'")
    return found


def _numbers(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    wanted: Sequence[str],
    fill: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Returns ``float64[rows, wanted]``, missing cells filled where ``fill`` knows their column."""
    known = fill or {}
    places, out = [names.index(name) for name in wanted], np.empty((len(rows), len(wanted)))
    for number, row in enumerate(rows):
        for at, place in enumerate(places):
            filled = known.get(wanted[at]) if row[place].lower() in _MISSING else None
            try:
                out[number, at] = float(row[place]) if filled is None else filled
            except ValueError:
                out[number, at] = math.nan
            if not math.isfinite(out[number, at]) or abs(out[number, at]) > np.finfo(np.float32).max:
                raise DataError(f"{path}, line {number + 2}, column '{wanted[at]}': {_odd(row[place])}")
    return out


def _weights(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], column: str) -> np.ndarray:
    """Returns ``float32[rows]``."""
    found = _numbers(path, names, rows, [column])[:, 0]
    if (found < 0).any():
        number = int(np.argmax(found < 0))
        raise DataError(f"{path}, line {number + 2}, column '{column}': expected at least 0, got {found[number]:g}")
    return checked_weights(f"{path}: column '{column}'", found, len(rows))


def _odd(cell: str) -> str:
    if cell.lower() in _MISSING:
        return "the cell is empty; leave the row out, or fill it by data.fill with a mean that anyone may know."
    return f"expected a number, got {cell!r:.40}; leave the column out, or number its values."


def _targets(
    path: Path, task: str, wanted: Sequence[str], *, names: Sequence[str], rows: Sequence[Sequence[str]], x: np.ndarray
) -> tuple[str, str, np.ndarray, tuple[str, ...]]:
    """Returns the task, why it is that, the targets and their names."""
    if not wanted or task == RECONSTRUCTION:
        return RECONSTRUCTION, "task.name says so", x, ()
    told = f"column{'s' * (len(wanted) > 1)} {', '.join(wanted)}"
    cells = [row[names.index(wanted[0])] for row in rows]
    if len(wanted) == 1 and task in (AUTO, CLASSIFICATION):
        classes = _classes(cells, any_number=task == CLASSIFICATION)
        if classes is not None:
            y = np.array([classes.index(cell) for cell in cells], np.int64)
            return CLASSIFICATION, f"{told} has {len(classes)} different values", y, tuple(classes)
    numbers = _numbers(path, names, rows, wanted)
    if task == AUTO:
        bits = len(wanted) > 1 and bool(np.isin(numbers, (0, 1)).all())
        task, why = ("multi-label", f"{told} hold 0 and 1") if bits else ("regression", f"{told} holds numbers")
    else:
        why = "task.name says so"
    if task_row(task).kind == CLASSES:
        raise DataError(f"{path}: task '{task}' cannot be told from a table: its targets are {task_row(task).targets}.")
    try:
        return task, why, prepared(task, numbers), tuple(wanted)
    except DataError as error:
        raise DataError(f"{path}: {told} is {error}.") from None


def _heads(
    path: Path, request: LoadRequest, wanted: Sequence[str], *, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[np.ndarray, str, str, Ends]:
    """Returns the targets of several columns joined, their task, why it is that, and their labels."""
    if len(wanted) < 2:
        raise ConfigError(f"{path}: task.heads need several columns: name them with data.target, parted by commas")
    odd = next((name for name in wanted if not re.fullmatch(r"\w+", name)), None)
    if odd is not None:
        raise DataError(f"{path}: column '{odd}' cannot be a head: rename it, letters, digits and _ alone")
    specs = specs_of(path, request.heads, wanted)
    arrays: dict[str, np.ndarray] = {}
    given = list(request.heads)
    for name in wanted:
        cells = [row[names.index(name)] for row in rows]
        asked = specs[name][0] if name in specs else ""
        told = not asked or asked == CLASSIFICATION
        classes = _classes(cells, any_number=asked == CLASSIFICATION) if told else None
        if classes is None:
            arrays[f"y.{name}"] = _numbers(path, names, rows, [name])[:, 0]
            given += [] if name in specs else [f"{name}=regression"]
            continue
        arrays[f"y.{name}"] = np.array([classes.index(cell) for cell in cells], np.int64)
        arrays[f"labels.{name}"] = np.array(classes, str)
    y, task, why, labels = heads_in(path, arrays, ["y"], given)
    return y[0], task, why, Ends(labels=labels)


def _classes(cells: Sequence[str], *, any_number: bool) -> list[str] | None:
    """Returns the names of classes in order, None where cells are measures."""
    found = sorted(set(cells))
    try:
        values = {cell: float(cell) for cell in found}
    except ValueError:
        return found if not _MISSING & {cell.lower() for cell in found} else None
    if not any_number and (len(found) > FEW or any(value != round(value) for value in values.values())):
        return None
    return sorted(found, key=lambda cell: values[cell])
