"""Frames of a model by input name: what calibrates, what proves, and what a bundle keeps as golden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from export.model.forms import Entry, InputForms
from export.model.serving import Frames, Serving, list_ends
from fl_mobile.errors import ExportError
from fl_mobile.seeds import rng_for

CALIBRATION_EXAMPLES = 100
NO_OUTPUT = "none"
"""Instead of an output's name: none is classes."""


def frames_for(serving: Serving, x: Any, what: str) -> Frames:
    """Returns ``x`` as the frames the artifact takes, by input name, without changing a value.

    Args:
        serving: The contract.
        x: One array ``[n, ...]`` for one input; for several a mapping by input name, or a tuple in their order.
        what: What the frames are for, as an error will call them.

    Raises:
        ExportError: An input is missing or unknown, wrong shape, no frames, not finite, or pixels that are not whole
            numbers in 0..255.
    """
    several = len(serving.inputs) > 1
    frames = {
        entry.name: _checked(entry, part, f"{what} of {entry.name!r}" if several else what)
        for entry, part in _by_input(serving, x, what)
    }
    counts = {name: len(part) for name, part in frames.items()}
    if len(set(counts.values())) != 1:
        raise ExportError(f"{what}: every input needs the same number of frames, got {counts}")
    return frames


def count_of(frames: Frames) -> int:
    """Returns the number of frames."""
    return len(next(iter(frames.values())))


def take(frames: Frames, rows: Any) -> Frames:
    """Returns the frames that ``rows`` selects: indices or a slice.

    >>> take({"a": np.arange(6)}, slice(2))["a"].tolist()
    [0, 1]
    """
    return {name: part[rows] for name, part in frames.items()}


def in_batches(frames: Mapping[str, np.ndarray], size: int) -> Iterator[tuple[Frames, int]]:
    """Yields ``size`` frames at a time, and how many of them count: the last is repeated where too few are left.

    >>> [(part["a"].tolist(), count) for part, count in in_batches({"a": np.arange(3)}, 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    total = len(next(iter(frames.values())))
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield {name: part[rows] for name, part in frames.items()}, min(size, total - start)


def calibration_split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rising indices of held-out examples for calibration (100, at most half) and for the proof (the rest).

    >>> calibration, proof = calibration_split(1000, seed=0)
    >>> len(calibration), len(proof), np.intersect1d(calibration, proof).size
    (100, 900, 0)
    """
    order = rng_for(seed, "calibration").permutation(count)
    cut = min(CALIBRATION_EXAMPLES, count // 2)
    return np.sort(order[:cut]), np.sort(order[cut:])


def form_of(x: np.ndarray) -> InputForms:
    """Returns what a model that was trained on examples ``x`` is given, None for what is usual.

    Pictures of floats that are no raw pixels (normalised, spectrograms) stay floats.

    >>> form_of(np.zeros((1, 8, 8, 1), np.uint8)), form_of(np.full((1, 8, 8, 1), 0.5))
    (None, 'float32')
    """
    if x.ndim != 4 or x.dtype.kind != "f":
        return None
    raw = x.min() >= 0 and 1 < x.max() <= 255 and bool((x == np.round(x)).all())
    return None if raw else "float32"


def _by_input(serving: Serving, x: Any, what: str) -> list[tuple[Entry, Any]]:
    names = [entry.name for entry in serving.inputs]
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ExportError(f"{what}: expected frames for {', '.join(names)}, got them for {', '.join(map(str, x))}")
        return [(entry, x[entry.name]) for entry in serving.inputs]
    if len(names) == 1:
        return [(serving.inputs[0], x)]
    if isinstance(x, (tuple, list)) and len(x) == len(names):
        return list(zip(serving.inputs, x, strict=True))
    raise ExportError(
        f"{what}: the model has {list_ends(serving.inputs)} inputs; give a mapping of those names to arrays [n, ...],"
        f" or a tuple in that order, got {type(x).__name__}"
    )


def _checked(entry: Entry, x: Any, what: str) -> np.ndarray:
    x = np.asarray(x)
    if x.shape[1:] != entry.shape[1:] or len(x) == 0:
        want = ", ".join(map(str, entry.shape[1:]))
        raise ExportError(f"{what}: expected one or more frames of shape [n, {want}], got {list(x.shape)}")
    if x.dtype == object or x.dtype.kind not in "uifb":
        raise ExportError(f"{what}: expected numbers, got dtype {x.dtype}")
    if not np.isfinite(x).all():
        raise ExportError(f"{what}: {int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    if entry.dtype == "int32":
        return _whole(x, what)
    if not entry.is_image:
        return _in_span(entry, x.astype(np.float32), what)
    if x.dtype != np.uint8:
        if x.min() < 0 or x.max() > 255 or (x != np.round(x)).any() or (x.dtype.kind == "f" and 0 < x.max() <= 1):
            raise ExportError(
                f"{what}: expected raw pixels, whole numbers 0..255, got {x.dtype} from {x.min():g} to {x.max():g}."
                " A model that normalises inside itself takes frames as the camera gives them (uint8); of one that does"
                " not say input_dtype='float32' (--input float32)."
            )
        x = x.astype(np.uint8)
    return x


def _whole(x: np.ndarray, what: str) -> np.ndarray:
    limits = np.iinfo(np.int32)
    if (x != np.round(x)).any() or x.min() < limits.min or x.max() > limits.max:
        raise ExportError(f"{what}: expected whole numbers (int32), got {x.dtype} from {x.min():g} to {x.max():g}")
    return x.astype(np.int32)


def _in_span(entry: Entry, x: np.ndarray, what: str) -> np.ndarray:
    if entry.span is not None and (x.min() < entry.span[0] or x.max() > entry.span[1]):
        low, high = entry.span
        raise ExportError(f"{what}: expected {low:g} to {high:g} as declared, got {x.min():g} to {x.max():g}")
    return x
