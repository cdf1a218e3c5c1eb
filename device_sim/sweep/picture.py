"""The Pareto plot: accuracy against bytes, with error bars, the front joined, and what made each point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from device_sim.sweep.plan import short
from device_sim.sweep.results import OBJECTIVES, Scores, TrialResult, front_of
from fl_mobile.storage.files import replace_atomic

LABELLED = 24
"""With more trials than this only the front, trial 0 and nothing else are labelled."""


def plot(results: Sequence[TrialResult], path: Path, cost: str = "total-bytes") -> None:
    """Draws accuracy against a cost of `OBJECTIVES`; PNG or SVG by the file's suffix. Failed trials are left out.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    from matplotlib.ticker import EngFormatter, NullFormatter

    from fl_mobile.measurements.measurement import new_figure

    drawn = [(r, r.scores) for r in results if r.scores]
    front = front_of(results, ["accuracy", cost])
    of = OBJECTIVES[cost].of
    figure = new_figure((8, 5))
    axes = figure.subplots()
    xs = [of(scores) for _, scores in drawn]
    middle = math.sqrt(max(xs) * min(xs))
    for result, scores in drawn:
        x, y = of(scores), 100 * scores.accuracy
        best = result in front
        color = "C3" if result.number == 0 else "C0" if best else "0.65"
        axes.errorbar(x, y, 100 * scores.accuracy_sd, fmt="o", capsize=3, color=color, zorder=3 if best else 2)
        if best or result.number == 0 or len(drawn) <= LABELLED:
            left = x > middle  # labels point inward, so that none leaves the picture
            axes.annotate(
                _told(result, scores, cost),
                (x, y),
                textcoords="offset points",
                xytext=(-8 if left else 8, 4),
                ha="right" if left else "left",
                fontsize=7,
            )
    line = sorted((of(r.scores), 100 * r.scores.accuracy) for r in front if r.scores)
    style = {"drawstyle": "steps-post", "linestyle": "--", "color": "C0", "zorder": 1}
    axes.plot([x for x, _ in line], [y for _, y in line], label="Pareto front", **style)
    axes.set(xscale="log", xlabel=OBJECTIVES[cost].told, ylabel=f"% {OBJECTIVES['accuracy'].told}")
    axes.xaxis.set_major_formatter(EngFormatter("B"))
    axes.xaxis.set_minor_formatter(EngFormatter("B") if max(xs) < 10 * min(xs) else NullFormatter())
    axes.tick_params(axis="x", which="both", labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
    replace_atomic(path, lambda tmp: figure.savefig(tmp, dpi=150))


def _told(result: TrialResult, scores: Scores, cost: str) -> str:
    lines = [f"{key.rpartition('.')[2]} {short(value)}" for key, value in result.params.items()] or [result.label]
    if cost == "upload-bytes":
        lines.append(f"{scores.upload_ratio:.0f}×")
    return "\n".join(lines)
