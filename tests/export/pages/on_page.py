"""What tests of every page do with it: open it, read what it says, choose a recipe, change its window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from export.model.serving import SIGNATURE
from export.runtimes import answers, real_values
from export.runtimes.browser import Tab
from export.tflite.graph import read_graph


def python_rows(bundle: Path, recipe: str, frames: np.ndarray) -> np.ndarray:
    """Returns LiteRT's answers in Python, in real units."""
    data = (bundle / f"{recipe}.tflite").read_bytes()
    return real_values(read_graph(data).signature(SIGNATURE).outputs[0], answers("litert", data, frames))


def open_page(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.wait_for("document.body.dataset.state === 'ready' || document.body.dataset.state === 'failed'")
    assert state(tab)["state"] == "ready", tab.evaluate("document.body.innerText")


def state(tab: Tab) -> dict[str, str]:
    return dict(json.loads(tab.evaluate("JSON.stringify(document.body.dataset)")))


def notice(tab: Tab) -> str:
    return str(tab.evaluate("document.getElementById('notice').innerText"))


def answered(tab: Tab) -> list[tuple[str, float]]:
    """Returns the labels and probabilities on the screen, best first."""
    script = """[...document.querySelectorAll('#answers li')].map((row) =>
        [row.querySelector('.name').textContent, parseFloat(row.querySelector('.share').textContent) / 100])"""
    return [(str(label), float(share)) for label, share in tab.evaluate(script)]


def next_answer(tab: Tab, before: int) -> list[tuple[str, float]]:
    tab.wait_for(f"Number(document.body.dataset.answered) > {before}", 20)
    return answered(tab)


def after(tab: Tab, action: str) -> list[tuple[str, float]]:
    """Runs a script that makes the page answer, and returns what it then shows."""
    before = int(state(tab)["answered"])
    tab.evaluate(action)
    return next_answer(tab, before)


def use_recipe(tab: Tab, recipe: str) -> None:
    tab.evaluate(f"document.querySelector('input[value=\"{recipe}\"]').click()")
    tab.wait_for(f"document.body.dataset.recipe === '{recipe}' && document.body.dataset.state === 'ready'")


def check_of(tab: Tab) -> tuple[str, str]:
    """Returns what the page says of its golden examples, and whether that is good."""
    found = tab.evaluate("[document.getElementById('check').textContent, document.getElementById('check').className]")
    return str(found[0]), str(found[1])


def resize(tab: Tab, width: int, height: int) -> None:
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
    tab.call("Emulation.setDeviceMetricsOverride", window)


def fits(tab: Tab, width: int, *names: str) -> None:
    """Nothing sticks out sideways, and what can be used is large enough to be hit."""
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out sideways"
    for name in names:
        box = tab.evaluate(f"document.getElementById('{name}').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= width
        assert box["height"] > 40
