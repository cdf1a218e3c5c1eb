"""Calls and rows of tables with more than four values say what each of them is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_sim

ROOMS = ("experiment", "datasets", "client_data", "fleet", "sweep", "federation")
KEYED = ("rng_for", "uniforms", "normals", "lognormals", "hashes")
"""What takes any number of values that key a draw."""
MOST = 4


def by_position(source: str) -> Iterator[str]:
    """Yields the calls with more than `MOST` values without a name, a tuple spread out among them counted whole."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in KEYED:
            spread = [a.value.elts for a in node.args if isinstance(a, ast.Starred) and isinstance(a.value, ast.Tuple)]
            if len(node.args) - len(spread) + sum(map(len, spread)) > MOST:
                yield f"line {node.lineno}: {ast.unparse(node.func)}"


@pytest.mark.parametrize("room", ROOMS)
def test_more_than_four_values_have_names(room: str) -> None:
    folder = Path(device_sim.__file__).parent / room
    found = [f"{path.name}, {call}" for path in sorted(folder.rglob("*.py")) for call in by_position(path.read_text())]
    assert not found


def test_it_catches() -> None:
    assert list(by_position("f(1, 2, 3, 4, 5)\ng(1, 2, 3, 4, e=5)\nh(*(1, 2, 3), 4, 5)")) == ["line 1: f", "line 3: h"]
