"""A sweep as it was asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment
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

    @property
    def cost(self) -> str:
        """The objective that the plot shows accuracy against."""
        return next((name for name in self.objectives if name.endswith("bytes")), "total-bytes")
