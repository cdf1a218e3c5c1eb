"""The keyboard page as a person uses it: what is suggested is what the ``.tflite`` says, as in Python."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets.words import words_of
from export.pages import page_resources
from export.runtimes.browser import Tab, serving
from tests.export.of_tasks import STEPS, TOKENS, WORDS, alphabet_bundle
from tests.export.pages.on_page import (
    after,
    answered,
    check_of,
    fits,
    notice,
    open_page,
    python_rows,
    resize,
    state,
    use_recipe,
)

pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.usefixtures("browser")]

RECIPES_HERE = ("float32", "dynamic-int8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alphabet_bundle(tmp_path_factory.mktemp("pages") / "keyboard", RECIPES_HERE)


@pytest.fixture(scope="module")
def url(browser: None, bundle: Path) -> Iterator[str]:
    name, resources = page_resources(bundle)
    assert name == "keyboard"
    with serving(resources) as address:
        yield address


def typed(tab: Tab, text: str) -> list[tuple[str, float]]:
    """Types ``text`` into the empty page and waits for its suggestions."""
    before = int(state(tab)["suggested"])
    script = f"(() => {{ const t = document.getElementById('text'); t.value = {json.dumps(text)};"
    found = after(tab, script + " t.dispatchEvent(new Event('input')); })()")
    tab.wait_for(f"Number(document.body.dataset.suggested) > {before}", 20)
    return found


def suggested(tab: Tab) -> list[str]:
    return [
        str(text) for text in tab.evaluate("[...document.querySelectorAll('#suggestions button')].map((b) => b.value)")
    ]


def told_in_python(bundle: Path, recipe: str, text: str) -> np.ndarray:
    """Returns the probabilities of the next character, by the way that task.json describes."""
    spelt = ["\n" if token == "\\n" else token for token in TOKENS]
    numbers = [spelt.index(character) if character in spelt else 0 for character in text][-STEPS:]
    row = np.zeros((1, STEPS), np.int32)
    row[0, : len(numbers)] = numbers
    return np.asarray(python_rows(bundle, recipe, row)[0, len(numbers) - 1])


@pytest.mark.parametrize("recipe", RECIPES_HERE)
@pytest.mark.parametrize("text", ["a", "bad", "cab fed ace beg", "a\nb", "Zz a"])
def test_what_comes_next_is_as_in_python(text: str, recipe: str, tab: Tab, url: str, bundle: Path) -> None:
    open_page(tab, f"{url}?recipe={recipe}")
    assert check_of(tab) == ("16 of 16", "good")
    row = told_in_python(bundle, recipe, text)
    best = np.argsort(-row, kind="stable")[:3]
    shown = {"<other>": "anything else", "\\n": "line end", " ": "space"}
    found = typed(tab, text)
    assert [name for name, _ in found] == [shown.get(TOKENS[i], TOKENS[i]) for i in best]
    assert [share for _, share in found] == pytest.approx(row[best].tolist(), abs=2e-3)


def test_suggestions_go_on_to_the_end_of_the_word(tab: Tab, url: str) -> None:
    open_page(tab, url)
    typed(tab, "ab")
    assert suggested(tab) == ["cdefgh", "defgh", "efgh"]
    tab.evaluate("document.querySelector('#suggestions button').click()")
    tab.wait_for("document.getElementById('text').value === 'abcdefgh'", 10)
    tab.wait_for("document.querySelector('#suggestions button').value.startsWith(' ')", 10)
    assert suggested(tab)[0] == " abcdefgh", "behind a word comes a space, and then the next word"


def test_other_recipes_go_on_from_the_same_text(tab: Tab, url: str, bundle: Path) -> None:
    open_page(tab, url)
    typed(tab, "ace")
    use_recipe(tab, "dynamic-int8")
    row = told_in_python(bundle, "dynamic-int8", "ace")
    assert answered(tab)[0][1] == pytest.approx(float(row.max()), abs=2e-3)
    assert check_of(tab) == ("16 of 16", "good")


def test_characters_outside_the_vocabulary_are_said(tab: Tab, url: str) -> None:
    open_page(tab, url)
    typed(tab, "añb")
    assert "1 of what you typed is not in the model's vocabulary" in notice(tab)
    typed(tab, "ab")
    assert notice(tab) == ""


def test_a_golden_example_is_a_beginning(tab: Tab, url: str) -> None:
    open_page(tab, url)
    assert after(tab, "document.querySelector('#lines button').click()")
    assert tab.evaluate("document.getElementById('text').value.length") > 0


def test_other_answers_than_pythons_show_in_the_self_check(bundle: Path, tab: Tab) -> None:
    """It catches: one answer of one example is not what Python told."""
    _, resources = page_resources(bundle)
    told = json.loads(resources["/bundle.json"].data)
    values = np.frombuffer(base64.b64decode(told["variants"][0]["values"]), np.float32).copy()
    values[0] += 0.01
    told["variants"][0]["values"] = base64.b64encode(values.tobytes()).decode()
    changed = {**resources, "/bundle.json": type(resources["/"])("application/json", json.dumps(told).encode())}
    with serving(changed) as address:
        open_page(tab, address)
        assert check_of(tab) == ("15 of 16", "bad")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 568)])
def test_it_fits_the_window(width: int, height: int, tab: Tab, url: str) -> None:
    resize(tab, width, height)
    open_page(tab, url)
    typed(tab, "abc")
    fits(tab, width, "text", "suggestions", "answers", "recipes")


@pytest.fixture(scope="module")
def of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alphabet_bundle(tmp_path_factory.mktemp("pages") / "words", tokens=WORDS)


def test_words_are_suggested_by_threes(tab: Tab, of_words: Path) -> None:
    name, resources = page_resources(of_words)
    assert name == "keyboard"
    with serving(resources) as address:
        open_page(tab, address)
        assert check_of(tab) == ("16 of 16", "good")
        assert "the last 8 words" in str(tab.evaluate("document.getElementById('window').textContent"))
        typed(tab, "The")
        assert suggested(tab) == ["sea", "wind", "ship"]
        tab.evaluate("document.querySelector('#suggestions button').click()")
        tab.wait_for("document.getElementById('text').value === 'The sea'", 10)
        tab.wait_for("document.querySelector('#suggestions button').value === 'wind'", 10)


@pytest.mark.parametrize("text", ["Don't.", "THE  sea\nCafé 7", "sailor, don't xyz ship", "'tis the sea_"])
def test_what_is_typed_is_parted_into_words_as_the_data_was(text: str, tab: Tab, of_words: Path) -> None:
    numbers = [WORDS.index(word) if word in WORDS[1:] else 0 for word in words_of(text)][-STEPS:]
    row = np.zeros((1, STEPS), np.int32)
    row[0, : len(numbers)] = numbers
    told = python_rows(of_words, "float32", row)[0, len(numbers) - 1]
    with serving(page_resources(of_words)[1]) as address:
        open_page(tab, address)
        found = typed(tab, text)
    assert [share for _, share in found] == pytest.approx(np.sort(told)[::-1][:3].tolist(), abs=2e-3)
    assert suggested(tab) == [WORDS[i] for i in np.argsort(-told, kind="stable") if i][:3]
