"""Membership inference: how well a threshold on an example's loss tells training examples from others.

Yeom et al., "Privacy risk in machine learning", CSF 2018: who guesses "member" where the loss is small has the
advantage TPR − FPR. The threshold is chosen on one half of the losses and judged on the other, or the best of many
thresholds would find an advantage where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import DataError
from fl_mobile.seeds import rng_for

FEWEST = 20
"""Members, and others, that a statement can stand on."""


@dataclass(frozen=True)
class Membership:
    """What a threshold on the loss gives away.

    Attributes:
        advantage: TPR − FPR on examples that did not choose the threshold; 0 is guessing, 1 is knowing.
        low: Lower end of its 95 % interval.
        high: Upper end.
        area: Under the ROC curve, of all examples; ½ is guessing.
        members: How many were looked at.
        others: How many were not trained on.
    """

    advantage: float
    low: float
    high: float
    area: float
    members: int
    others: int


def membership(member_losses: np.ndarray, other_losses: np.ndarray, seed: int) -> Membership:
    """Returns what losses of members ``float[n]`` and of others ``float[m]`` give away.

    Raises:
        DataError: Too few of either.
    """
    for what, losses in (("training", member_losses), ("held-out", other_losses)):
        if len(losses) < FEWEST:
            raise DataError(f"membership needs at least {FEWEST} {what} examples, got {len(losses)}")
    halves = [_halves(losses, rng_for(seed, "membership", i)) for i, losses in enumerate((member_losses, other_losses))]
    (choose_in, judge_in), (choose_out, judge_out) = halves
    threshold = best_threshold(choose_in, choose_out)
    hits, alarms = float((judge_in <= threshold).mean()), float((judge_out <= threshold).mean())
    error = 1.96 * math.sqrt(hits * (1 - hits) / len(judge_in) + alarms * (1 - alarms) / len(judge_out))
    advantage = hits - alarms
    return Membership(
        advantage=advantage,
        low=max(-1.0, advantage - error),
        high=min(1.0, advantage + error),
        area=area(member_losses, other_losses),
        members=len(member_losses),
        others=len(other_losses),
    )


def best_threshold(members: np.ndarray, others: np.ndarray) -> float:
    """Returns the loss up to which guessing "member" has the largest advantage on these.

    >>> best_threshold(np.array([0.1, 0.2, 0.9]), np.array([0.3, 0.4, 0.5]))
    0.2
    """
    candidates = np.sort(members)
    hits = np.searchsorted(candidates, candidates, side="right") / len(members)
    alarms = np.searchsorted(np.sort(others), candidates, side="right") / len(others)
    return float(candidates[np.argmax(hits - alarms)])


def area(members: np.ndarray, others: np.ndarray) -> float:
    """Returns the chance that a member's loss is below another's, ties counting half.

    >>> area(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    rising = np.sort(others)
    below = np.searchsorted(rising, members, side="right"), np.searchsorted(rising, members, side="left")
    return float(1 - (below[0] + below[1]).mean() / (2 * len(others)))


def _halves(losses: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(len(losses))
    return losses[order[: len(order) // 2]], losses[order[len(order) // 2 :]]
