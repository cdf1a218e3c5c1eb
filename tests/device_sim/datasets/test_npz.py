"""A user's own .npz: what is kept, what is refused."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.datasets import load_dataset
from fl_mobile.errors import DataError


def save(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_npz_keeps_a_given_test_part_devices_and_labels(tmp_path):
    x = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
    path = save(
        tmp_path / "a.npz",
        x=x,
        y=np.array([0, 1, 1, 0], np.uint8),
        x_test=x[:2],
        y_test=np.array([1, 2]),
        device=np.array(["tom", "ann", "tom", "ann"]),
        labels=np.array(["a", "b", "c"]),
    )
    data = load_dataset("npz", seed=0, path=path)
    assert data.input_shape == (6, 5, 1)
    assert np.array_equal(data.train.x[..., 0], x)
    assert data.labels == ("a", "b", "c")
    assert data.device_of.tolist() == [1, 0, 1, 0]


def test_npz_split_keeps_devices_with_their_examples(tmp_path):
    device = np.arange(40) % 5
    path = save(tmp_path / "a.npz", x=np.column_stack([np.arange(40), device]), y=np.arange(40) % 2, device=device)
    data = load_dataset("npz", seed=3, path=path, test_fraction=0.5)
    assert data.train.x.dtype == np.float32
    assert np.array_equal(data.train.x[:, 1], data.device_of)
    assert sorted(np.concatenate([data.train.x[:, 0], data.test.x[:, 0]])) == list(range(40))
    assert data.labels == ("0", "1")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros(4, int)}, "no array 'x'"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4, int), "lables": np.array(["a"])}, "Did you mean 'labels'"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(3, int)}, "expected"),
        ({"x": np.zeros(4), "y": np.zeros(4, int)}, "expected"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4)}, r"expected integer classes.*: save y\.astype\('int64'\)"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 1), int)}, r"expected integer classes.*: save y\.ravel\(\)\."),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 1))}, r"save y\.ravel\(\)\.astype\('int64'\)"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4, bool)}, r"save y\.astype\('int64'\)"),
        ({"x": np.zeros((4, 2)), "y": np.eye(4)}, r"one-hot, save y\.argmax\(axis=1\)"),
        ({"x": np.zeros((4, 2)), "y": np.ones((4, 3, 1), int)}, "one label an example"),
        ({"x": np.zeros((4, 2)), "y": np.array(["a", "b", "a", "b"])}, r"np\.unique\(y, .*labels="),
        ({"x": np.zeros((4, 2)), "y": np.array([0.5, 1, 2, np.nan])}, "NaN or Inf"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 3, 5, 6), int)}, "one label an example"),
        ({"x": np.zeros((4, 2)), "y": np.ones((4, 3), int), "labels": np.array(["a"])}, "3 targets an example, but 1"),
        ({"x": np.zeros((4, 2)), "y": np.array([0.5, 1, 2, 3]), "x_test": np.zeros((2, 2)), "y_test": np.ones((2, 2))},
         "2 targets an example, but 1"),
        ({"x": np.zeros((4, 2)), "y_test": np.zeros(4, int)}, "holds y_test alone"),
        ({"x": np.zeros((4, 2)), "y": np.array([0, 1, -1, 0])}, "classes run from -1"),
        ({"x": np.zeros((4, 2)), "y": np.array([0, 1, 2, 0]), "labels": np.array(["a", "b"])}, "expected 0 to 1"),
        ({"x": np.full((4, 2), np.nan), "y": np.zeros(4, int)}, "NaN or Inf"),
        ({"x": np.full((4, 2), 1e300), "y": np.zeros(4, int)}, "NaN or Inf"),
        ({"x": np.full((4, 2), 2**30), "y": np.zeros(4, int)}, "beyond 2"),
        ({"x": np.full((4, 2), "a"), "y": np.zeros(4, int)}, "expected uint8 pixels or numbers"),
        ({"x": np.zeros((4, 2)), "y": np.full(4, 10**9)}, "classes run up to"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4, int), "x_test": np.zeros((1, 2))}, "come together"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(4, int), "device": np.zeros(3, int)}, "'device' is"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "No examples"),
        (
            {"x": np.zeros((4, 2)), "y": np.zeros(4, int), "x_test": np.zeros((1, 3)), "y_test": np.zeros(1, int)},
            "test",
        ),
        ({"x": np.array([[{}]] * 4, object), "y": np.zeros(4, int)}, "Python objects, which are never loaded"),
    ],
)  # fmt: skip
def test_bad_npz_files_are_refused(tmp_path, arrays, says):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=says):
        load_dataset("npz", seed=0, path=path)


def test_an_npz_that_declares_terabytes_is_refused_before_it_is_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    for shape, says in (
        ((10**6, 10**6), "8000000000000 bytes, but holds 8"),
        ((10**4, 10**3), "80000000 bytes, but holds 8"),
    ):
        path, header = tmp_path / "bomb.npz", io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header.getvalue() + b"\0" * 8)
            archive.writestr("y.npy", header.getvalue() + b"\0" * 8)
        with pytest.raises(DataError, match=says):
            load_dataset("npz", seed=0, path=path)


@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 400),
)
@settings(max_examples=300, deadline=None)
def test_any_npz_bytes_give_a_dataset_or_a_data_error(tmp_path_factory, flips, cut):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(24.0).reshape(6, 4), y=np.arange(6) % 2)
    data = bytearray(buffer.getvalue())
    for at, change in flips:
        data[at % len(data)] ^= change
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    path.write_bytes(data[: len(data) - cut if cut % 2 else None])
    with contextlib.suppress(DataError):
        load_dataset("npz", seed=0, path=path, test_fraction=0.5)


@pytest.mark.parametrize(
    ("task", "x", "y"),
    [
        ("multi-label", np.zeros((40, 3)), np.tile([[0, 1, 1], [1, 1, 0]], (20, 1))),
        ("sequence", np.tile(np.arange(6), (40, 1)), np.tile([1, 2, 3, 4, 5, -1], (40, 1))),
        ("segmentation", np.zeros((40, 4, 4), np.uint8), np.tile(np.eye(4, dtype=int), (40, 1, 1))),
        ("regression", np.zeros((40, 3)), np.linspace(0, 1, 40)),
        ("reconstruction", np.full((40, 4, 4), 255, np.uint8), None),
    ],
)
def test_targets_of_every_task_are_seen_and_split(tmp_path, task, x, y):
    path = tmp_path / "mine.npz"
    np.savez(path, x=x, **({} if y is None else {"y": y}))
    found = load_dataset("npz", seed=0, path=path)
    assert found.task == task
    assert len(found.train) == 32
    assert len(found.test) == 8
    assert found.train.x.dtype == (np.int32 if task == "sequence" else x.dtype if x.dtype == np.uint8 else np.float32)
    if task == "reconstruction":
        assert found.train.y.shape == found.train.x.shape
        assert found.train.y.max() == 1.0
    other = load_dataset("npz", seed=0, path=path, task="reconstruction")
    assert other.task == "reconstruction"


def test_whole_numbers_are_measures_when_the_experiment_says_so(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.zeros((40, 3)), y=np.arange(40))
    with pytest.raises(DataError, match=r'task\.name = "regression"'):
        load_dataset("npz", seed=0, path=path)
    found = load_dataset("npz", seed=0, path=path, task="regression")
    assert found.num_classes == 1
    assert found.train.y.dtype == np.float32


def test_npz_weights_stay_with_their_examples(tmp_path):
    x = np.column_stack([np.arange(40), np.arange(40)])
    arrays = {"x": x, "y": np.arange(40) % 2, "weight": np.arange(40) / 4}
    data = load_dataset("npz", seed=3, path=save(tmp_path / "a.npz", **arrays), test_fraction=0.5)
    for part in (data.train, data.test):
        assert np.array_equal(part.weight, part.x[:, 0] / 4)
    assert data.trained_task == "weighted(classification:-)"
    assert np.array_equal(data.trained_targets(data.test.y, data.test.weight)[:, 1], data.test.weight)
    plain = load_dataset("npz", seed=3, path=save(tmp_path / "a.npz", x=x, y=arrays["y"]), test_fraction=0.5)
    assert plain.trained_task == "classification"
    assert plain.trained_targets(plain.test.y) is plain.test.y
    assert plain.fingerprint != data.fingerprint


def test_npz_a_test_part_without_weights_weighs_one(tmp_path):
    arrays = {"x": np.zeros((4, 2)), "y": [0, 1, 0, 1], "weight": [1, 2, 0, 4], "x_test": np.ones((2, 2))}
    data = load_dataset("npz", seed=0, path=save(tmp_path / "a.npz", **arrays, y_test=[0, 1]))
    assert (data.train.weight.tolist(), data.test.weight.tolist()) == ([1, 2, 0, 4], [1, 1])
    given = load_dataset("npz", seed=0, path=save(tmp_path / "b.npz", **arrays, y_test=[0, 1], weight_test=[3, 0]))
    assert given.test.weight.tolist() == [3, 0]


def test_npz_weights_of_several_heads(tmp_path):
    heads = {"y.mood": np.arange(40) % 2, "y.pain": np.arange(40) / 7, "x": np.arange(80.0).reshape(40, 2)}
    data = load_dataset("npz", seed=0, path=save(tmp_path / "a.npz", **heads, weight=np.arange(40)))
    assert np.array_equal(data.train.weight, data.train.x[:, 0] / 2)
    assert data.trained_task == f"weighted({data.task}:2)"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"weight": [1, -1, 1, 1]}, r"'weight' is -1 at example 1, and 0 more are odd"),
        ({"weight": [1, np.nan, 1, 1]}, "'weight' is nan at example 1"),
        ({"weight": [1, 1, 1]}, r"'weight' is int64\(3,\), expected one number for each of 4 examples"),
        ({"weight": np.zeros(4)}, "'weight' is 0 for all 4 examples"),
        ({"weight_test": np.ones(4)}, "weight_test alone"),
        ({"weight": np.ones(4), "weight_test": np.ones(4)}, "weight_test alone"),
        ({"weight.a": np.ones(4)}, "unknown array 'weight.a'"),
        ({"weight": np.ones(4), "x_test": np.ones((2, 2)), "y_test": [0, 1], "weight_test": [1, -2]}, "'weight_test'"),
    ],
)
def test_npz_refuses_weights_that_mean_nothing(tmp_path, arrays, says):
    path = save(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.array([0, 1, 0, 1]), **arrays)
    with pytest.raises(DataError, match=says):
        load_dataset("npz", seed=0, path=path)
