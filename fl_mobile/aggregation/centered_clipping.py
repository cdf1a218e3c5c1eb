"""Centered clipping: steps towards the updates, none of them longer than a radius.

Karimireddy et al., "Learning from history for Byzantine robust optimization", ICML 2021, algorithm 2:

    v ← v + 1/n Σ (xᵢ − v)·min(1, τ/‖xᵢ − v‖)

The paper starts at the aggregate of the round before. A round here stands on its own: v starts at the coordinate-wise
median, and τ, unless it is given, is the median of the distances to v, found anew for every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from fl_mobile.aggregation.single import Values, Verdict, WholeUpdates, middle, norms_of, shortened, summed
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec


@dataclass(frozen=True)
class Clipping:
    """[server] of centered clipping."""

    clip_radius: float = parameter(0.0, "τ; 0 is the median of the distances", at_least=0)
    clip_steps: int = parameter(3, "how often the centre moves", at_least=1, at_most=100)

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def centered_clipping(
    spec: Spec, clip_radius: float = Clipping.clip_radius, clip_steps: int = Clipping.clip_steps
) -> WholeUpdates:
    """Returns the rule."""
    return WholeUpdates(spec, partial(centered, clip_radius=clip_radius, clip_steps=clip_steps))


def centered(rows: Values, clip_radius: float, clip_steps: int) -> Verdict:
    """Returns the centre after some steps."""
    centre = middle(np.sort(rows, axis=0))
    for _ in range(clip_steps):
        away = rows - centre
        distances = norms_of(away)
        radius = clip_radius or middle(np.sort(distances)[:, None])[0]
        centre = centre + summed(shortened(distances, radius), away) / len(rows)
    return Verdict(centre, np.ones(len(rows), bool))
