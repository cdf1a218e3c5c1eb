"""A sweep as it was asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sim.experiment.experiment import Experiment
    from device_sim.sweep.heat_map import Grid
    from device_sim.sweep.results import TrialResult
    from device_sim.sweep.search import Search


@dataclass(frozen=True)
class Job:
    """A sweep as it was asked for, by file or by codecs; ``what`` is the same in JSON types."""

    base: Experiment
    seeds: int
    search: Search
    objectives: tuple[str, ...]
    what: dict[str, Any]
    out: Path
    plot: Path | None

    def grid(self, results: Sequence[TrialResult]) -> Grid | None:
        """Returns results over two keys as rows and columns; None of other sweeps."""
        from device_sim.sweep.heat_map import grid_of

        return grid_of(results, self.base, self.what.get("search", {}))

    @property
    def cost(self) -> str:
        """The objective that the plot shows accuracy against."""
        return next((name for name in self.objectives if name.endswith("bytes")), "total-bytes")
