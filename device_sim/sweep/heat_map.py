"""A grid over two keys as a table and a heat map: one row a value of the first key, one column of the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import values_by_key
from device_sim.sweep.plan import short
from device_sim.sweep.results import FINAL_ROUNDS, TrialResult
from fl_mobile.storage.files import replace_atomic

FAILED = "failed"
"""Stands for a trial without scores: it was refused, or training diverged."""


@dataclass(frozen=True)
class Grid:
    """What a sweep over two keys found.

    Attributes:
        keys: Of rows and of columns.
        rows: Values of the first key, as a person would write them.
        columns: Of the second.
        cells: ``cells[row][column]``, the trial; None where none ended with these values.
    """

    keys: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[TrialResult | None, ...], ...]

    def told(self) -> list[tuple[str, ...]]:
        """Returns the rows of a table: the value of the first key, then accuracy in percent."""
        return [(name, *map(_told, cells)) for name, cells in zip(self.rows, self.cells, strict=True)]


def _told(result: TrialResult | None) -> str:
    if result is None or result.scores is None:
        return FAILED if result else "–"
    return f"{100 * result.scores.accuracy:.1f}"


def grid_of(results: Sequence[TrialResult], base: Experiment, search: dict[str, Any]) -> Grid | None:
    """Returns the grid of a sweep that searched two keys, each among a list of values; None of any other sweep.

    Args:
        base: Trial 0, which stands for the combination that it is.
        search: Key → list of values.
    """
    if len(search) != 2 or not all(isinstance(values, list) for values in search.values()):
        return None
    (first, rows), (second, columns) = search.items()
    own = values_by_key(base)
    found = {tuple(_plain(r.params.get(key, own.get(key))) for key in search): r for r in reversed(results)}
    cells = tuple(tuple(found.get((_plain(row), _plain(column))) for column in columns) for row in rows)
    return Grid((first, second), tuple(map(short, rows)), tuple(map(short, columns)), cells)


def _plain(value: Any) -> tuple[type, Any]:
    return (bool, value) if isinstance(value, bool) else (type(value), value)  # 1, 1.0 and true are three values


def draw_heat_map(grid: Grid, path: Path) -> None:
    """Draws mean accuracy of every combination; PNG or SVG by the file's suffix.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    from fl_mobile.measurements.measurement import new_figure

    values = [
        [100 * one.scores.accuracy if one and one.scores else float("nan") for one in cells] for cells in grid.cells
    ]
    size = (2.2 + 0.95 * len(grid.columns), 1.4 + 0.45 * len(grid.rows))
    figure = new_figure(size)
    axes = figure.subplots()
    picture = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(grid.rows)), grid.rows, fontsize=8)
    axes.set(xlabel=grid.keys[1], ylabel=grid.keys[0])
    for row, texts in enumerate(grid.told()):
        for column, text in enumerate(texts[1:]):
            dark = values[row][column] < 60
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(picture, label=f"% accuracy, mean of last {FINAL_ROUNDS} rounds")
    replace_atomic(path, lambda tmp: figure.savefig(tmp, dpi=150))
