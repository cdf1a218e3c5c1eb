"""The form as a person uses it: numbers in, numbers out, as in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.pages import page_resources
from export.runtimes.browser import Tab, serving
from tests.export.of_tasks import COLUMNS, NUMBERS, clinic_bundle
from tests.export.pages.on_page import after, check_of, fits, notice, open_page, python_rows, resize, state, use_recipe

pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.usefixtures("browser")]

RECIPES_HERE = ("float32", "dynamic-int8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clinic_bundle(tmp_path_factory.mktemp("pages") / "form", RECIPES_HERE)


@pytest.fixture(scope="module")
def url(browser: None, bundle: Path) -> Iterator[str]:
    name, resources = page_resources(bundle)
    assert name == "form"
    with serving(resources) as address:
        yield address


def ready(tab: Tab, url: str) -> None:
    """Opens the page; it asks its first golden example by itself."""
    open_page(tab, url)
    tab.wait_for("Number(document.body.dataset.answered) > 0", 20)


def filled(pulse: float | str, weight: float | str) -> str:
    return f"""(() => {{ const [a, b] = document.querySelectorAll('#fields input');
        [a.value, b.value] = ['{pulse}', '{weight}']; a.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""


def shown(tab: Tab) -> dict[str, float]:
    script = """[...document.querySelectorAll('#answers li')].map((row) =>
        [row.querySelector('.name').textContent, Number(row.querySelector('.share').textContent)])"""
    return dict(tab.evaluate(script))


@pytest.mark.parametrize("recipe", RECIPES_HERE)
def test_numbers_are_told_as_in_python(recipe: str, tab: Tab, url: str, bundle: Path) -> None:
    ready(tab, f"{url}?recipe={recipe}")
    assert check_of(tab) == ("16 of 16", "good")
    assert tuple(tab.evaluate("[...document.querySelectorAll('#fields input')].map((f) => f.name)")) == COLUMNS
    after(tab, filled(61.5, 80))
    row = python_rows(bundle, recipe, np.float32([[61.5, 80]]))[0]
    assert shown(tab) == pytest.approx(dict(zip(NUMBERS, row.tolist(), strict=True)), rel=1e-4)


def test_a_golden_example_fills_the_form_and_another_recipe_asks_again(tab: Tab, url: str, bundle: Path) -> None:
    ready(tab, url)
    after(tab, "document.querySelectorAll('#examples button')[3].click()")
    before = int(state(tab)["answered"])
    use_recipe(tab, "dynamic-int8")
    assert int(state(tab)["answered"]) > before


def test_what_is_no_number_is_said_by_name(tab: Tab, url: str) -> None:
    ready(tab, url)
    tab.evaluate(filled("", 70))
    tab.wait_for("!document.getElementById('notice').hidden", 10)
    assert "Not a number yet: pulse" in notice(tab)
    after(tab, filled(60, 70))
    assert notice(tab) == ""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (320, 568)])
def test_it_fits_the_window(width: int, height: int, tab: Tab, url: str) -> None:
    resize(tab, width, height)
    ready(tab, url)
    fits(tab, width, "fields", "examples", "answers", "recipes")
