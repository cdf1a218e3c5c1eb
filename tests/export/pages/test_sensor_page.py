"""The sensor page as a person uses it: a recording is heard window by window, in Python as in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets.recordings import windows_of
from export.bundles.phone_task import unpack_replay
from export.pages import page_resources
from export.runtimes.browser import Tab, serving
from tests.export.of_tasks import ACTIVITIES, HOP, WINDOW, sensor_bundle
from tests.export.pages.on_page import (
    after,
    answered,
    check_of,
    fits,
    open_page,
    python_rows,
    resize,
    state,
    use_recipe,
)

pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.usefixtures("browser")]

RECIPES_HERE = ("float32", "int8")
HEAR_ALL = "document.getElementById('all').click()"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sensor_bundle(tmp_path_factory.mktemp("pages") / "sensor", RECIPES_HERE)


@pytest.fixture(scope="module")
def url(browser: None, bundle: Path) -> Iterator[str]:
    name, resources = page_resources(bundle)
    assert name == "sensor"
    with serving(resources) as address:
        yield address


@pytest.fixture(scope="module")
def heard(bundle: Path) -> np.ndarray:
    """The windows that the page is to hear, in order."""
    return windows_of(unpack_replay((bundle / "replay.npz").read_bytes()).signal, WINDOW, HOP)


@pytest.mark.parametrize("recipe", RECIPES_HERE)
def test_every_window_is_told_as_in_python(recipe: str, tab: Tab, url: str, bundle: Path, heard: np.ndarray) -> None:
    open_page(tab, f"{url}?recipe={recipe}")
    assert check_of(tab) == ("16 of 16", "good")
    rows = python_rows(bundle, recipe, heard)
    step = "document.getElementById('chart').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    tab.evaluate(step)  # the first window ends two hops from the begin
    for index, row in enumerate(rows):
        found = after(tab, step)
        assert found[0][0] == ACTIVITIES[int(row.argmax())], index
        assert found[0][1] == pytest.approx(float(row.max()), abs=2e-3)
        tab.wait_for(f"document.body.dataset.windows === '{index + 1}'", 10)


def test_all_of_it_at_once(tab: Tab, url: str, heard: np.ndarray) -> None:
    open_page(tab, url)
    after(tab, HEAR_ALL)
    tab.wait_for(f"document.body.dataset.windows === '{len(heard)}'", 20)
    whole = 8  # windows of one class; those across a cut hold both
    assert tab.evaluate("document.getElementById('right').textContent").startswith(f"{whole} of {whole} windows")


def test_it_plays_pauses_and_begins_anew(tab: Tab, url: str, heard: np.ndarray) -> None:
    open_page(tab, url)
    tab.evaluate("document.getElementById('speed').value = '16'; document.getElementById('play').click()")
    tab.wait_for("Number(document.body.dataset.windows) >= 2", 20)
    assert state(tab)["playing"] == "yes"
    tab.wait_for("document.body.dataset.playing === 'no'", 30)
    assert state(tab)["windows"] == str(len(heard))
    assert tab.evaluate("document.getElementById('play').textContent") == "Replay"
    tab.evaluate("document.getElementById('speed').value = '1'; document.getElementById('play').click()")
    tab.wait_for(f"Number(document.body.dataset.windows) < {len(heard)}", 10)
    tab.evaluate("document.getElementById('play').click()")
    tab.wait_for("document.body.dataset.playing === 'no'", 10)


def test_another_recipe_hears_the_same_again(tab: Tab, url: str, bundle: Path, heard: np.ndarray) -> None:
    open_page(tab, url)
    after(tab, HEAR_ALL)
    use_recipe(tab, "int8")
    assert state(tab)["windows"] == str(len(heard))
    row = python_rows(bundle, "int8", heard[-1:])[0]
    assert answered(tab)[0] == (ACTIVITIES[int(row.argmax())], pytest.approx(float(row.max()), abs=2e-3))


def test_the_chart_shows_curves_and_labels(tab: Tab, url: str) -> None:
    """Each curve and each class has its own colour on the canvas."""
    open_page(tab, url)
    after(tab, HEAR_ALL)
    count = """(() => {
      const canvas = document.getElementById('chart');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const seen = {};
      for (let i = 0; i < data.length; i += 4) {
        const key = [data[i], data[i + 1], data[i + 2]].join(); seen[key] = (seen[key] ?? 0) + 1;
      }
      return ['86,180,233', '230,159,0', '0,114,178'].map((key) => seen[key] ?? 0);
    })()"""
    assert all(pixels > 200 for pixels in tab.evaluate(count))


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 568)])
def test_it_fits_the_window(width: int, height: int, tab: Tab, url: str) -> None:
    resize(tab, width, height)
    open_page(tab, url)
    after(tab, HEAR_ALL)
    fits(tab, width, "chart", "play", "all", "answers", "recipes")
