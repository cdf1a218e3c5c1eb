"""The camera page as a person uses it, in a real browser: drop, choose, switch, refuse, film."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundles.folder import read_bundle
from export.pages import page_resources
from export.runtimes.browser import BrowserError, Tab, serving
from export.verify.golden import unpack_golden
from tests.export.convert.topologies import LABELS
from tests.export.pages.conftest import COLOURS, RECIPES_HERE
from tests.export.pages.on_page import (
    after,
    answered,
    fits,
    next_answer,
    notice,
    open_page,
    python_rows,
    resize,
    state,
    use_recipe,
)

pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.usefixtures("browser")]


def frames_of(bundle: Path) -> np.ndarray:
    """Returns the golden frames of the bundle's only input, ``uint8[n, height, width, channels]``."""
    (frames,) = unpack_golden(read_bundle(bundle).files["golden.npz"]).frames.values()
    return frames


def save_picture(path: Path, frame: np.ndarray, scale: int = 1) -> Path:
    """Writes a frame as PNG, every pixel ``scale`` wide and high."""
    from PIL import Image

    pixels = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


def drop(tab: Tab, *files: Path) -> None:
    """Drags files from outside the browser onto the page."""
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tab.call("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data})


def choose(tab: Tab, *files: Path) -> None:
    """Chooses files in the page's file dialog."""
    document = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", {"nodeId": document, "selector": "#files"})["nodeId"]
    tab.call("DOM.setFileInputFiles", {"nodeId": node, "files": [str(file) for file in files]})


def matches(shown: list[tuple[str, float]], row: np.ndarray, labels: Any) -> None:
    """The page shows the three best of ``row``; probabilities are printed with one decimal of a percent."""
    assert shown[0][0] == labels[int(row.argmax())]
    best = np.sort(row)[::-1][:3]
    assert [share for _, share in shown] == pytest.approx(best.tolist(), abs=2e-3)
    for label, share in shown:
        assert share == pytest.approx(float(row[list(labels).index(label)]), abs=2e-3)


@pytest.mark.parametrize("recipe", RECIPES_HERE)
def test_golden_frames_as_in_python(recipe: str, tab: Tab, digits_page: str, digits_bundle: Path) -> None:
    frames = frames_of(digits_bundle)
    open_page(tab, f"{digits_page}?recipe={recipe}")
    assert state(tab)["recipe"] == recipe
    assert tab.evaluate("document.getElementById('check').textContent") == f"{len(frames)} of {len(frames)}"
    for index, row in enumerate(python_rows(digits_bundle, recipe, frames)):
        matches(after(tab, f"document.querySelectorAll('#strip button')[{index}].click()"), row, LABELS)


def test_a_dropped_picture_is_classified(tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path) -> None:
    frame = frames_of(digits_bundle)[3]
    row = python_rows(digits_bundle, "float32", frame[None])[0]
    open_page(tab, digits_page)
    before = int(state(tab)["answered"])
    drop(tab, save_picture(tmp_path / "digit.png", frame))
    matches(next_answer(tab, before), row, LABELS)
    assert state(tab)["source"] == "picture"
    latency = tab.evaluate("document.querySelector('.facts').innerText")
    assert "this browser" in latency
    assert "ms" in latency


def test_large_pictures_are_scaled_and_recipes_switch_under_them(
    tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path
) -> None:
    frame = frames_of(digits_bundle)[5]
    open_page(tab, digits_page)
    before = int(state(tab)["answered"])
    choose(tab, save_picture(tmp_path / "large.png", frame, scale=64))
    matches(next_answer(tab, before), python_rows(digits_bundle, "float32", frame[None])[0], LABELS)
    for recipe in RECIPES_HERE[::-1]:
        use_recipe(tab, recipe)
        matches(answered(tab), python_rows(digits_bundle, recipe, frame[None])[0], LABELS)


def test_light_and_dark_can_be_swapped(tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path) -> None:
    """Ink on paper, as a camera sees it, is the negative of the training data."""
    frame = frames_of(digits_bundle)[0]
    open_page(tab, digits_page)
    before = int(state(tab)["answered"])
    drop(tab, save_picture(tmp_path / "ink.png", 255 - frame))
    matches(next_answer(tab, before), python_rows(digits_bundle, "float32", 255 - frame[None])[0], LABELS)
    swapped = after(tab, "document.getElementById('invert').click()")
    matches(swapped, python_rows(digits_bundle, "float32", frame[None])[0], LABELS)


def test_colour_pictures_are_cropped_to_the_middle(tab: Tab, colours_bundle: Path, tmp_path: Path) -> None:
    """Order of channels, of rows and columns, and the crop: only the middle of the picture has the colour."""
    with serving(page_resources(colours_bundle)[1]) as url:
        open_page(tab, url)
        assert tab.evaluate("document.getElementById('invert-label').hidden")
        for number, label in enumerate(COLOURS):
            picture = np.zeros((40, 200, 3), np.uint8)
            picture[:, :60, (number + 1) % 3] = picture[:, 140:, (number + 1) % 3] = 255
            picture[:, 60:140, number] = 200
            before = int(state(tab)["answered"])
            drop(tab, save_picture(tmp_path / f"{label}.png", picture))
            shown = next_answer(tab, before)
            assert shown[0][0] == label
            assert shown[0][1] > 0.9


def test_a_frame_of_its_own_size_arrives_unchanged(tab: Tab, colours_bundle: Path, tmp_path: Path) -> None:
    frames = frames_of(colours_bundle)
    with serving(page_resources(colours_bundle)[1]) as url:
        open_page(tab, url)
        for frame, row in zip(frames, python_rows(colours_bundle, "float32", frames), strict=True):
            before = int(state(tab)["answered"])
            drop(tab, save_picture(tmp_path / "frame.png", frame))
            matches(next_answer(tab, before), row, COLOURS)


def test_what_is_no_picture_is_said_by_name(tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    open_page(tab, digits_page)
    drop(tab, text)
    tab.wait_for("!document.getElementById('notice').hidden", 10)
    assert "notes.txt" in notice(tab)
    before = int(state(tab)["answered"])
    drop(tab, text, save_picture(tmp_path / "digit.png", frames_of(digits_bundle)[1]))
    assert next_answer(tab, before), "the good one of two is still classified"
    assert "notes.txt" in notice(tab)


def permit_camera(tab: Tab, url: str, setting: str) -> None:
    permission = {"permission": {"name": "camera"}, "setting": setting, "origin": url.rstrip("/")}
    tab.call("Browser.setPermission", permission)


def test_the_camera_films_until_it_is_stopped(tab: Tab, digits_page: str) -> None:
    open_page(tab, digits_page)
    permit_camera(tab, digits_page, "granted")
    tab.evaluate("document.getElementById('camera').click()")
    tab.wait_for("Number(document.body.dataset.answered) >= 5", 20)
    assert (state(tab)["camera"], state(tab)["source"]) == ("on", "camera")
    use_recipe(tab, "int8")
    next_answer(tab, int(state(tab)["answered"]) + 3)
    tab.evaluate("document.getElementById('camera').click()")
    tab.wait_for("document.body.dataset.camera === 'off' && document.getElementById('video').srcObject === null", 10)
    assert state(tab)["source"] == "none"
    assert notice(tab) == ""


def test_a_refused_camera_is_said_and_pictures_still_work(
    tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path
) -> None:
    open_page(tab, digits_page)
    permit_camera(tab, digits_page, "denied")
    tab.evaluate("document.getElementById('camera').click()")
    tab.wait_for("document.body.dataset.camera === 'refused'", 10)
    assert "refused" in notice(tab)
    assert "work without it" in notice(tab)
    before = int(state(tab)["answered"])
    drop(tab, save_picture(tmp_path / "digit.png", frames_of(digits_bundle)[2]))
    assert next_answer(tab, before)
    permit_camera(tab, digits_page, "granted")
    tab.evaluate("document.getElementById('camera').click()")
    tab.wait_for("document.body.dataset.camera === 'on'", 10)


def test_no_request_leaves_this_computer(tab: Tab, digits_page: str, digits_bundle: Path, tmp_path: Path) -> None:
    tab.call("Network.enable")
    open_page(tab, digits_page)
    permit_camera(tab, digits_page, "granted")
    drop(tab, save_picture(tmp_path / "digit.png", frames_of(digits_bundle)[2]))
    for recipe in RECIPES_HERE:
        use_recipe(tab, recipe)
    tab.evaluate("document.getElementById('camera').click()")
    tab.wait_for("document.body.dataset.camera === 'on'", 10)
    asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert f"{digits_page}bundle.json" in asked
    assert len(asked) >= 8 + len(RECIPES_HERE)
    assert not [url for url in asked if not url.startswith((digits_page, "blob:", "data:"))]


def test_the_page_could_not_reach_elsewhere_if_it_tried(tab: Tab, digits_page: str) -> None:
    """Another server on this very computer stands for elsewhere: only the page's policy is in the way."""
    from export.runtimes.browser import Resource

    with serving({"/": Resource("text/plain", b"elsewhere")}) as elsewhere:
        open_page(tab, digits_page)
        with pytest.raises(BrowserError, match="Failed to fetch"):
            tab.evaluate(f"fetch('{elsewhere}', {{mode: 'no-cors'}}).then((r) => r.status)")
    assert tab.evaluate(f"fetch('{digits_page}').then((r) => r.status)") == 200


def test_a_changed_answer_shows_in_the_self_check(tab: Tab, digits_bundle: Path) -> None:
    """It catches: the page is served another artifact than the one its bundle describes."""
    resources = page_resources(digits_bundle)[1]
    told = json.loads(resources["/bundle.json"].data)
    told["variants"][0]["golden"][0] = (told["variants"][0]["golden"][0] + 1) % 10
    changed = {**resources, "/bundle.json": type(resources["/"])("application/json", json.dumps(told).encode())}
    with serving(changed) as url:
        open_page(tab, url)
        count = len(told["golden"]["labels"])
        assert tab.evaluate("document.getElementById('check').textContent") == f"{count - 1} of {count}"
        assert tab.evaluate("document.getElementById('check').className") == "bad"


def test_a_model_the_browser_refuses_is_said(tab: Tab, digits_bundle: Path) -> None:
    resources = page_resources(digits_bundle)[1]
    broken = type(resources["/"])("application/octet-stream", resources["/float32.tflite"].data[:2000])
    with serving({**resources, "/float32.tflite": broken}) as url:
        tab.open(url)
        tab.wait_for("document.body.dataset.state === 'failed'", 20)
        assert "cannot run the model" in notice(tab)
        assert tab.evaluate("document.getElementById('camera').disabled")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (820, 1180), (390, 844), (320, 568)])
def test_it_fits_the_window(width: int, height: int, tab: Tab, digits_page: str) -> None:
    resize(tab, width, height)
    open_page(tab, digits_page)
    after(tab, "document.querySelectorAll('#strip button')[1].click()")
    fits(tab, width, "stage", "camera", "choose", "answers", "recipes")
    first = tab.evaluate("document.querySelector('#answers li').getBoundingClientRect().bottom")
    assert first < height, "picture and answer are seen together"
