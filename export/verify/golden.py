"""A few held-out frames with the answers every runtime must give again: an artifact's own test.

Stored as ``.npz`` (zip of ``.npy``) so that a phone or a browser can read it without Python; never pickled. Members:
``frames.<input>``, ``labels.<output>``, ``keras.<output>``, ``<recipe>.<output>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import VerifyError
from fl_mobile.storage.npz import Header, pack_arrays, parse_arrays

MAX_FRAMES = 16
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class Golden:
    """Golden frames of a bundle.

    Attributes:
        frames: Input name → what goes in, ``[k, ...]`` in the artifact's input dtype.
        labels: Output name → ``int64[k]`` true classes, for the outputs that have them; of other tasks the targets
            ``[k, ...]``.
        keras: Output name → ``float32[k, ...]`` Keras' answers.
        outputs: Recipe name → output name → raw stored rows of LiteRT on the exporting host, ``[k, ...]``.
    """

    frames: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    keras: Mapping[str, np.ndarray]
    outputs: Mapping[str, Mapping[str, np.ndarray]]


def choose_frames(labels: np.ndarray) -> np.ndarray:
    """Returns indices of the first frame of each class, then of the next ones, at most 16, in ascending order.

    >>> choose_frames(np.array([1, 1, 0, 1, 2])).tolist()
    [0, 1, 2, 3, 4]
    >>> choose_frames(np.array([5] * 30 + [2])).tolist()[-2:]
    [14, 30]
    """
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.sort(np.concatenate([np.sort(first), rest])[:MAX_FRAMES])


def _has_rows(header: Header) -> None:
    if not header.shape:
        raise ValueError(f"'{header.name}' is one number, expected a row per frame")


def pack_golden(golden: Golden) -> bytes:
    """Returns the ``.npz`` bytes; the same arrays give the same bytes."""
    groups = {"frames": golden.frames, "labels": golden.labels, "keras": golden.keras, **golden.outputs}
    members = ((f"{group}.{name}", part) for group, parts in groups.items() for name, part in parts.items())
    return bytes(pack_arrays(dict(members)))


def unpack_golden(data: bytes) -> Golden:
    """Returns the golden frames in ``data``.

    Raises:
        VerifyError: The bytes are not what ``pack_golden`` writes. Sizes are checked before anything is allocated:
            a 128-byte ``.npy`` may claim terabytes.
    """
    try:
        arrays = parse_arrays(data, most_bytes=_MAX_BYTES, check=_has_rows)
    except ValueError as error:
        raise VerifyError(f"golden.npz cannot be read: {error}") from error
    groups: dict[str, dict[str, np.ndarray]] = {}
    for member, array in arrays.items():
        group, dot, name = member.partition(".")
        if not dot or not name:
            raise VerifyError(f"golden.npz: {member} does not say of which input or output; export the model again")
        groups.setdefault(group, {})[name] = array
    groups.setdefault("labels", {})  # a model may have no classes
    missing = {"frames", "keras"} - groups.keys()
    if missing:
        raise VerifyError(f"golden.npz lacks {', '.join(sorted(missing))}")
    frames, labels, keras = (groups.pop(group) for group in ("frames", "labels", "keras"))
    unlike = [group for group, parts in groups.items() if parts.keys() != keras.keys()]
    if labels.keys() - keras.keys() or unlike:
        raise VerifyError(f"golden.npz: keras has other outputs than {', '.join(unlike) or 'labels'}")
    if len({len(array) for array in arrays.values()}) != 1:
        raise VerifyError("golden.npz: frames, labels and outputs do not have one row per frame")
    return Golden(frames, labels, keras, groups)
