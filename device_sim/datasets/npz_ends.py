"""Several inputs or targets in one ``.npz``: arrays ``x.<input>`` and ``y.<head>`` in place of ``x`` and ``y``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_sim.datasets.records import Ends, check_classes
from fl_mobile.errors import ConfigError, DataError, nearest
from fl_mobile.models.ends import Port
from fl_mobile.tasks import TASKS, Head, decide, multi_head, prepared, task_row
from fl_mobile.tasks.heads import joined
from fl_mobile.tasks.table import CLASSES, CLASSIFICATION

Arrays = Mapping[str, np.ndarray]

EXACT = 2**24
"""Whole numbers up to here are exact in rows of float32."""
_SPEC = re.compile(r"(?P<name>\w+)=(?P<task>[a-z-]*)(?::(?P<loss>[\w.:-]+))?(?:\*(?P<weight>[\d.]+))?")


class Joined(NamedTuple):
    """Parts of a file, joined.

    Attributes:
        x: Rows of the training and, where the file has one, the test part.
        y: Their targets.
        task: Of the targets.
        why: It is that, in words.
        ends: What is joined.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    task: str
    why: str
    ends: Ends


def named(arrays: Arrays, key: str) -> dict[str, np.ndarray]:
    """Returns the arrays ``key.<name>`` by name, in the order of the file.

    >>> list(named({"x.a": np.zeros(1), "x": np.zeros(1)}, "x"))
    ['a']
    """
    return {name[len(key) + 1 :]: value for name, value in arrays.items() if name.startswith(f"{key}.")}


def several(arrays: Arrays) -> bool:
    """Returns whether a file holds several inputs or targets."""
    return bool(named(arrays, "x") or named(arrays, "y"))


def inputs_in(path: Path, arrays: Arrays, keys: Sequence[str]) -> tuple[list[np.ndarray], tuple[Port, ...]]:
    """Returns the joined inputs of each part of the file, and what lies in them.

    Args:
        keys: ``"x"``, and ``"x_test"`` where the file has a test part.
    """
    parts = [{name: _input(f"{path}: '{key}.{name}'", x) for name, x in named(arrays, key).items()} for key in keys]
    for key, part in zip(keys, parts, strict=True):
        _same_names(path, keys[0], parts[0], key=key, found=part)
        _same_length(path, {f"{key}.{name}": len(x) for name, x in part.items()})
    ports = tuple(Port(name, tuple(x.shape[1:]), x.dtype.name) for name, x in parts[0].items())
    for key, part in zip(keys, parts, strict=True):
        for port in ports:
            found = part[port.name]
            if found.shape[1:] != port.shape or found.dtype.name != port.dtype:
                raise DataError(
                    f"{path}: '{key}.{port.name}' is {found.dtype}{found.shape}, '{keys[0]}.{port.name}' has"
                    f" {port.dtype}{list(port.shape)} an example"
                )
    return [joined({port.name: part[port.name] for port in ports}) for part in parts], ports


def heads_in(
    path: Path, arrays: Arrays, keys: Sequence[str], wanted: Sequence[str]
) -> tuple[list[np.ndarray], str, str, dict[str, tuple[str, ...]]]:
    """Returns the joined targets of each part, their task, why it is that, and the labels of every head.

    Args:
        keys: ``"y"``, and ``"y_test"`` where the file has a test part.
        wanted: The key ``task.heads``.
    """
    raw = [named(arrays, key) for key in keys]
    for key, part in zip(keys, raw, strict=True):
        _same_names(path, keys[0], raw[0], key=key, found=part)
    specs = specs_of(path, wanted, list(raw[0]))
    heads, labels = [], {}
    ready: list[dict[str, np.ndarray]] = [{} for _ in keys]
    for name in raw[0]:
        task, loss, weight = specs.get(name, ("", "", 1.0))
        for key, part, into in zip(keys, raw, ready, strict=True):
            what = f"{path}: '{key}.{name}'"
            try:
                task = task or decide(part[name])[0]
                into[name] = prepared(task, part[name])
            except DataError as error:
                asked = str(error).replace("task.name = ", f"task.heads = {name}=")
                raise DataError(f"{what} is {asked}.") from None
        found = [into[name] for into in ready]
        labels[name] = _labels(path, name, arrays, task=task, parts=found)
        heads.append(_head(name, task, loss, weight, y=found[0], classes=len(labels[name])))
    for key, into in zip(keys, ready, strict=True):
        _same_length(path, {f"{key}.{name}": len(y) for name, y in into.items()})
    told = ", ".join(f"{head.name} {head.task}" for head in heads)
    return [joined(part) for part in ready], multi_head(heads), f"there are targets {told}", labels


def _head(name: str, task: str, loss: str, weight: float, y: np.ndarray, classes: int) -> Head:
    row, target = task_row(task), tuple(y.shape[1:])
    loss = loss or row.losses[0]
    if loss not in row.losses:
        raise ConfigError(f"task.heads: loss '{loss}' cannot train '{name}' ({task}): {', '.join(row.losses)} can")
    if row.kind != CLASSES:
        return Head(name, task, target, target, loss=loss, weight=weight)
    lone = task == CLASSIFICATION and loss.startswith("binary-")
    if lone and classes > 2:
        raise ConfigError(f"task.heads: {loss} tells two classes apart, '{name}' has {classes}")
    return Head(name, task, target, (*target, 1 if lone else classes), loss=loss, weight=weight)


def specs_of(path: Path, wanted: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, str, float]]:
    """Returns task, loss and weight of each head that the key ``task.heads`` names; what it leaves open is empty."""
    found = {}
    for text in wanted:
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ConfigError(f"task.heads: expected name=task:loss*weight, such as pain=regression*0.5, got '{text}'")
        name, task = match["name"], match["task"]
        if name not in names:
            raise ConfigError(f"task.heads: {path} has no 'y.{name}'.{nearest(name, names)}")
        if task and task not in TASKS:
            raise ConfigError(f"task.heads: unknown task '{task}' of '{name}'.{nearest(task, TASKS)}")
        weight = float(match["weight"] or 1)
        if not weight > 0:
            raise ConfigError(f"task.heads: the weight of '{name}' must be above 0, got {weight:g}")
        found[name] = task, match["loss"] or "", weight
    return found


def check_exact(what: str, x: np.ndarray) -> None:
    """Raises `DataError` for whole numbers beyond `EXACT`."""
    if x.dtype.kind in "iub" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > EXACT:
        raise DataError(f"{what} holds integers beyond 2^24, which float32 cannot hold exactly.")


def _input(what: str, x: np.ndarray) -> np.ndarray:
    """Returns an input ``[n, …]``: pixels, whole numbers as tokens, or float32."""
    if x.dtype.kind not in "iufb" or x.ndim == 0:
        raise DataError(f"{what} is {x.dtype}{x.shape}, expected numbers [n, …].")
    x = x[:, None] if x.ndim == 1 else x
    if x.dtype == np.uint8:
        return x[..., None] if x.ndim == 3 else x
    if x.dtype.kind in "iub":
        check_exact(what, x)
        return x.astype(np.int32)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"{what} holds NaN or Inf. Clean the data first.")
    return narrow


def _labels(path: Path, name: str, arrays: Arrays, task: str, parts: Sequence[np.ndarray]) -> tuple[str, ...]:
    given = named(arrays, "labels").get(name)
    if given is not None and (given.dtype.kind != "U" or given.ndim != 1):
        raise DataError(f"{path}: 'labels.{name}' is {given.dtype}{given.shape}, expected text [classes].")
    labels = () if given is None else tuple(given.tolist())
    if task_row(task).kind != CLASSES:
        if labels and len(labels) != parts[0][0].size:
            raise DataError(f"{path}: 'labels.{name}' has {len(labels)} names for {parts[0][0].size} targets.")
        return labels
    highest = max(int(part.max(initial=0)) for part in parts)
    if not labels and highest > 10**5:
        raise DataError(f"{path}: classes of 'y.{name}' run up to {highest}: number them from 0.")
    labels = labels or tuple(map(str, range(max(highest + 1, 2))))
    for part in parts:
        check_classes(f"{path}: 'y.{name}'", np.maximum(part, 0) if task_row(task).padded else part, labels)
    return labels


def _same_names(path: Path, first: str, wanted: Mapping[str, object], key: str, found: Mapping[str, object]) -> None:
    if odd := sorted(wanted.keys() ^ found.keys()):
        raise DataError(f"{path}: '{first}.{odd[0]}' and '{key}.{odd[0]}' come together; one of them is missing.")


def _same_length(path: Path, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise DataError(f"{path}: as many examples in each are expected, got {told}.")
