"""Targets: which task they are of, what they become in memory, and what examples are dealt and held out by."""

from __future__ import annotations

import numpy as np

from fl_mobile.errors import DataError
from fl_mobile.tasks.table import BITS, CLASSES, NUMBERS, RECONSTRUCTION, task_row

_DECILES = 10


def decide(y: np.ndarray | None) -> tuple[str, str]:
    """Returns the task that targets are of, and why.

    Args:
        y: Targets as they came, or None for none.

    Raises:
        DataError: They can be meant in several ways; the message says what to write for each.

    >>> decide(np.array([0, 2, 1]))
    ('classification', 'targets are int64[n]')
    >>> decide(np.array([0.5, 2.25]))
    ('regression', 'targets are float64[n] with fractions')
    """
    if y is None:
        return RECONSTRUCTION, "there are no targets"
    told = f"targets are {y.dtype}[{', '.join(['n', *map(str, y.shape[1:])])}]"
    if y.dtype.kind == "f":
        whole = np.isfinite(y).all() and np.array_equal(y, np.rint(y))
        if whole:
            found = f"{y.dtype}{y.shape}, expected integer classes [n] from 0{remedy(y)}"
            raise DataError(f'{found}; or, if they are measures, task.name = "regression"')
        return "regression", f"{told} with fractions"
    if y.dtype.kind not in "iub":
        raise DataError(f"{y.dtype}{y.shape}, expected integer classes [n] from 0{remedy(y)}")
    if y.ndim == 1 and y.dtype.kind != "b":
        return "classification", told
    if y.ndim == 2 and y.shape[1] > 1:
        if not np.isin(y, (0, 1)).all():
            return "sequence", told
        if (y.sum(axis=1) == 1).all():
            raise DataError(f'{y.dtype}{y.shape}{remedy(y)}; or, if they are tags, task.name = "multi-label"')
        return "multi-label", f"{told} of 0 and 1, several 1 in a row or none"
    if y.ndim == 3 and min(y.shape[1:]) > 1:
        return "segmentation", told
    raise DataError(f"{y.dtype}{y.shape}, expected integer classes [n] from 0{remedy(y)}")


def remedy(y: np.ndarray, name: str = "y") -> str:
    """Returns how targets of another shape or kind become classes, as far as they can."""
    if y.dtype.kind in "US":
        return f": save names, {name} = np.unique({name}, return_inverse=True), and the names as labels="
    if y.dtype.kind not in "iufb":
        return ""
    if y.ndim == 2 and y.shape[1] > 1:
        hot = bool(((y != 0).sum(axis=1) == 1).all())
        return f": it is one-hot, save {name}.argmax(axis=1)" if hot else ""
    flat = ".ravel()" if y.ndim > 1 and y.size == len(y) else ""
    if y.ndim > 1 and not flat:
        return ": one label an example"
    return f": save {name}{flat}" + (".astype('int64')" if y.dtype.kind not in "iu" else "")


def rebuilt(x: np.ndarray) -> np.ndarray:
    """Returns the targets of a reconstruction, ``float32[n, …]``: the inputs, pixels (uint8) from 0 to 1."""
    return x.astype(np.float32) * np.float32(1 / 255 if x.dtype == np.uint8 else 1)


def standardised(y: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Returns numbers to be told, ``float32[n, …]``, in units of their spread: each entry's ``float64[…]``."""
    found: np.ndarray = ((y - mean) / spread).astype(np.float32)
    return found


def prepared(task: str, y: np.ndarray) -> np.ndarray:
    """Returns targets as they are trained on: ``int64`` classes, or ``float32`` bits and numbers, ``[n, …]``.

    Raises:
        DataError: They are no targets of that task.
    """
    row = task_row(task)
    if y.dtype.kind not in "iufb":
        raise DataError(f"{y.dtype}{y.shape}, expected {row.targets} for task '{task}'{remedy(y)}")
    if row.kind == NUMBERS:
        with np.errstate(over="ignore"):
            numbers = y.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise DataError(f"{int((~np.isfinite(numbers)).sum())} of {numbers.size} targets are NaN or Inf")
        return numbers[:, None] if numbers.ndim == 1 else numbers
    if y.ndim - 1 != row.axes:
        raise DataError(f"{y.dtype}{y.shape}, expected {row.targets} for task '{task}'")
    whole = np.asarray(y, np.float64) if y.dtype.kind == "f" else y
    if y.dtype.kind == "f" and not np.array_equal(whole, np.rint(whole)):
        raise DataError(f"{y.dtype}{y.shape} with fractions, expected {row.targets} for task '{task}'")
    if row.kind == BITS:
        if not np.isin(whole, (0, 1)).all():
            raise DataError(f"values from {whole.min():g} to {whole.max():g}, expected {row.targets} for '{task}'")
        return whole.astype(np.float32)
    classes = whole.astype(np.int64)
    if row.kind == CLASSES and row.padded and classes.size and classes.max() < 0:
        raise DataError(f"every entry is padding (below 0), expected {row.targets} for task '{task}'")
    return np.where(classes < 0, -1, classes) if row.padded else classes


def strata_of(y: np.ndarray) -> np.ndarray:
    """Returns ``int64[n]``: what examples are dealt and held out by. A class; of one number its tenth; else all alike.

    >>> strata_of(np.array([3, 0])), strata_of(np.zeros((2, 5), np.int64))
    (array([3, 0]), array([0, 0]))
    """
    if y.ndim == 1 and y.dtype.kind in "iu":
        return y
    if y.dtype.kind == "f" and y.size == len(y):
        flat = y.reshape(-1).astype(np.float64)
        groups = max(1, min(_DECILES, len(flat) // _DECILES))
        edges = np.unique(np.quantile(flat, np.arange(1, groups) / groups)) if groups > 1 else np.zeros(0)
        return np.searchsorted(edges, flat, side="right").astype(np.int64)
    return np.zeros(len(y), np.int64)
