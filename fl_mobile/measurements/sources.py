"""Updates to measure codecs on: real ones stored as ``.npz``, and the standard synthetic distributions."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fl_mobile.errors import ConfigError, DataError, check_known
from fl_mobile.seeds import rng_for
from fl_mobile.storage.files import write_atomic
from fl_mobile.storage.npz import Header, read_arrays
from fl_mobile.tensors import Spec, Tensors, TensorSpec

MOST_BYTES = 2**31
"""An update file that declares more than this is refused before anything is read."""

_FLOATS = ("<f2", "<f4", "<f8")


def _generalised_gaussian(rng: np.random.Generator, size: int) -> np.ndarray:
    """Shape β = 0.5, density ∝ exp(−√|x|): |x| is the square of a Gamma(2) variable."""
    return rng.gamma(2.0, size=size) ** 2 * rng.choice([-1.0, 1.0], size)


SOURCES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gaussian": lambda rng, size: rng.normal(size=size),
    "laplace": lambda rng, size: rng.laplace(size=size),
    "generalised-gaussian": _generalised_gaussian,
}
"""Name → sampler of independent values, light to heavy tails; kurtosis 3, 6 and 25."""


def synthetic(name: str, size: int, count: int, seed: int) -> list[Tensors]:
    """Returns ``count`` updates of one ``float32[size]`` tensor each.

    Raises:
        ConfigError: No such source.
    """
    check_known("source", name, SOURCES)
    if size < 1 or count < 1:
        raise ConfigError(f"a source needs at least 1 value and 1 update, got {size} and {count}")
    return [{name: SOURCES[name](rng_for(seed, name, i), size).astype(np.float32)} for i in range(count)]


def spec_of(update: Mapping[str, np.ndarray]) -> Spec:
    """Returns the spec of an update whose model is not at hand: every tensor counts as trainable."""
    return {path: TensorSpec(value.shape) for path, value in update.items()}


def write_update(path: Path, update: Mapping[str, np.ndarray]) -> None:
    """Writes an update as ``.npz``: one array per tensor, named by its variable path, in model order; atomic."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in update.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value, "<f4"), version=(1, 0), allow_pickle=False)
    write_atomic(path, buffer.getbuffer())


def read_update(path: Path) -> Tensors:
    """Returns the tensors of an ``.npz`` file, float32, in file order.

    Raises:
        DataError: Missing or damaged, larger than `MOST_BYTES`, not floats, or not finite.
        OSError: The disk fails.
    """

    def check(header: Header) -> None:
        if header.dtype.str not in _FLOATS:
            raise DataError(
                f"{path}, '{header.name}': expected little-endian float16, 32 or 64, got {header.dtype} of shape"
                f" {header.shape}"
            )

    try:
        arrays = read_arrays(path, most_bytes=MOST_BYTES, check=check)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a run stores updates in its folder 'updates'") from None
    except (ValueError, IsADirectoryError, PermissionError) as error:  # any other is the disk's, and passes as such
        raise DataError(f"{path} is not a readable .npz file of updates: {error}") from error
    if not arrays:
        raise DataError(f"{path} must hold one array per tensor, got none")
    return {name: finite(values, f"{path}, '{name}'") for name, values in arrays.items()}


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """Returns values of an update as float32.

    Raises:
        DataError: NaN, Inf, or values past float32; names ``where``.
    """
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32, order="C")
    if not np.isfinite(narrow).all():
        raise DataError(f"{where}: holds NaN, Inf or values past float32; store updates that did not diverge")
    return narrow


def read_updates(path: Path, spec: Spec | None = None) -> list[Tensors]:
    """Returns the update in a file, or all in a folder's ``.npz`` files by name.

    Args:
        path: A file or folder.
        spec: What they have to fit; without it the first one decides.

    Raises:
        DataError: None there, one of them unreadable, or not all of one model.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .npz file; keep updates in a run with output.keep-updates")
    updates = [read_update(file) for file in files]
    shapes = {p: t.shape for p, t in (spec or spec_of(updates[0])).items()}
    for file, update in zip(files, updates, strict=True):
        if list(update) != list(shapes) or any(v.shape != shapes[p] for p, v in update.items()):
            raise DataError(f"{file} is of another model: expected {_brief(shapes)}, got {_brief(_shapes(update))}")
    return updates


def _shapes(update: Tensors) -> dict[str, tuple[int, ...]]:
    return {path: value.shape for path, value in update.items()}


def _brief(shapes: Mapping[str, tuple[int, ...]]) -> str:
    first = ", ".join(f"{path} {list(shape)}" for path, shape in list(shapes.items())[:3])
    return f"{len(shapes)} tensors ({first}{', …' if len(shapes) > 3 else ''})"
