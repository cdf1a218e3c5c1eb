"""Frames of a model by input name: what calibrates, what proves, and what a bundle keeps as golden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.model.serving import Entry, Frames, Serving, list_ends
from fl_mobile.errors import ExportError


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
    if not entry.is_image:
        return x.astype(np.float32)
    if x.dtype != np.uint8:
        if x.min() < 0 or x.max() > 255 or (x != np.round(x)).any() or (x.dtype.kind == "f" and 0 < x.max() <= 1):
            raise ExportError(
                f"{what}: expected raw pixels, whole numbers 0..255, got {x.dtype} from {x.min():g} to {x.max():g}."
                " The model normalises inside itself; give the frames as the camera does (uint8)."
            )
        x = x.astype(np.uint8)
    return x
