"""docs/recipes.md names recipes that exist, leaves none of the plain ones out, and says where each row is from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from export.convert.recipes import CORE_RECIPES, RECIPES, TUNED_RECIPES

GUIDE = (Path(__file__).parents[3] / "docs/recipes.md").read_text(encoding="utf-8")
ROWS = [line for line in GUIDE.splitlines() if line.startswith("| ")][1:]
KNOWN = {**RECIPES, **TUNED_RECIPES}


def named(text: str) -> set[str]:
    """Returns what in ``text`` is written like a recipe: code with a number format in it."""
    return {word for word in re.findall(r"`([a-z0-9-]+)`", text) if re.search(r"int8|float|int16", word)}


def test_every_recipe_the_guide_names_exists() -> None:
    assert named(GUIDE)
    assert named(GUIDE) <= KNOWN.keys(), named(GUIDE) - KNOWN.keys()


def test_the_table_places_every_plain_recipe_and_the_guide_every_tuned_one() -> None:
    in_table = set().union(*map(named, ROWS))
    assert set(CORE_RECIPES) <= in_table
    assert RECIPES.keys() <= in_table
    assert named(GUIDE) == KNOWN.keys()


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_every_row_recommends_and_cites(row: str) -> None:
    hardware, recipes, reason, sources = (cell.strip() for cell in row.strip("|").split(" | "))
    assert hardware
    assert reason
    assert named(recipes), "no recipe"
    numbers = re.findall(r"\[(\d+)\]", sources)
    assert numbers, "no source"
    for number in numbers:
        assert re.search(rf"^\[{number}\]: https://\S+$", GUIDE, re.MULTILINE), number


def test_every_source_is_used() -> None:
    for number in re.findall(r"^\[(\d+)\]:", GUIDE, re.MULTILINE):
        assert f"[{number}]" in GUIDE.partition("## Sources")[0], number


@pytest.mark.parametrize("hardware", ["XNNPACK", "GPU", "Edge TPU", "Hexagon", "NPU", "Microcontroller"])
def test_the_hardware_people_ask_for_is_there(hardware: str) -> None:
    assert any(hardware in row.split("|")[1] for row in ROWS)
