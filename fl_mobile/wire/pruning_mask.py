"""Pruning while training federatedly: which weights stay zero in a round, computed alike by server and devices.

```
broadcast weights, round ─▶ masks_for ─▶ device: masked weights, masked delta ─▶ server: masked new weights
```
The mask is a function of the round number and of the weights every device has just decoded, so no mask travels.
Magnitude pruning under a polynomial schedule: Zhu & Gupta, "To prune, or not to prune" (2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import ConfigError
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec, Tensors

Masks = dict[str, np.ndarray]
"""Variable path → ``bool`` array of its shape, True where a weight lives; absent paths are not pruned."""

SCHEDULES = ("polynomial", "constant")

SMALLEST_KERNEL = 2048
"""Kernels of fewer weights are not pruned: they weigh little, and a first convolution or a last layer has none to
spare. On the demo CNN at 80 %, the 1,280 weights of the last layer (0.6 % of all) cost 1.8 points in a federation
(held-out digits, seeds 0 and 1) and 0.3 in a recipe (validation digits, seeds 0 to 4)."""


@dataclass(frozen=True)
class PruningPlan:
    """[train.pruning]: weights that become zero while devices train; what is zero does not travel."""

    sparsity: float = parameter(0.0, "share of zeros of every pruned kernel at the end; 0 is off", at_least=0, below=1)
    begin_round: int = parameter(0, "first round with zeros", at_least=0)
    end_round: int = parameter(0, "from this round on the share is sparsity; later ones train what is left", at_least=0)
    schedule: str = parameter(
        "polynomial", f"{' | '.join(SCHEDULES)}: rise from begin-round to end-round, or at once", known=SCHEDULES
    )
    zero_run: int = parameter(
        4, "dense kernels: zeros come in runs of so many inputs, as TFLite stores them; 1 is off", at_least=1
    )
    smallest_kernel: int = parameter(SMALLEST_KERNEL, "kernels of fewer weights are not pruned", at_least=1)

    def __post_init__(self) -> None:
        check_parameters(self, "train.pruning")
        if self.begin_round > self.end_round:
            raise ConfigError(
                f"train.pruning: expected 0 ≤ begin-round ≤ end-round, got {self.begin_round} and {self.end_round}"
            )

    def prunes_in(self, round_num: int) -> bool:
        """Returns whether devices get a pruned model in round ``round_num``."""
        return sparsity_at(self, round_num) > 0

    @property
    def settled_round(self) -> int:
        """First round whose model has all its zeros; 0 where nothing is pruned."""
        begins_whole = self.begin_round if self.schedule == "constant" else self.end_round
        return begins_whole if self.sparsity else 0


def sparsity_at(plan: PruningPlan, round_num: int) -> float:
    """Returns the share of zeros in round ``round_num``; it never falls.

    >>> plan = PruningPlan(0.8, begin_round=10, end_round=20)
    >>> [round(sparsity_at(plan, r), 3) for r in (9, 10, 15, 20, 99)]
    [0.0, 0.0, 0.7, 0.8, 0.8]
    """
    if round_num < plan.begin_round:
        return 0.0
    if plan.schedule == "constant" or round_num >= plan.end_round:
        return plan.sparsity
    done = (round_num - plan.begin_round) / (plan.end_round - plan.begin_round)
    return plan.sparsity * (1.0 - (1.0 - done) ** 3)


def masks_for(plan: PruningPlan, weights: Tensors, spec: Spec, round_num: int) -> Masks:
    """Returns the masks of ``round_num``; empty before the first.

    Of every kernel the ``round(sparsity · size)`` weights of least magnitude go, ties by position, so two computers
    with equal weights make equal masks.

    Args:
        weights: The model as devices decoded it, zeros of earlier rounds included.
    """
    share = sparsity_at(plan, round_num)
    if not share:
        return {}
    return {path: _mask(weights[path], share, run) for path, run in zero_runs(plan, spec).items()}


def pruned_paths(plan: PruningPlan, spec: Spec) -> list[str]:
    """Returns the paths that are pruned: trainable, of rank 2 or more, and not small."""
    return [
        path
        for path, tensor in spec.items()
        if tensor.trainable and len(tensor.shape) >= 2 and tensor.size >= plan.smallest_kernel
    ]


def zero_runs(plan: PruningPlan, spec: Spec) -> dict[str, int]:
    """Returns how many inputs of one output are pruned together, by path of what is pruned."""
    shapes = {path: spec[path].shape for path in pruned_paths(plan, spec)}
    return {path: plan.zero_run if len(s) == 2 and s[0] % plan.zero_run == 0 else 1 for path, s in shapes.items()}


def live_runs(values: np.ndarray, run: int) -> np.ndarray:
    """Returns ``bool[inputs / run, ...]``: whether any of ``run`` values along the first axis is not zero.

    >>> live_runs(np.array([[0, 0], [0, 3], [0, 0], [0, 0]]), 2).tolist()
    [[False, True], [False, False]]
    """
    return (values != 0).reshape(values.shape[0] // run, run, *values.shape[1:]).any(axis=1)


def spread_runs(runs: np.ndarray, run: int) -> np.ndarray:
    """Returns ``[inputs, ...]`` with the value of each run at every one of its ``run`` places."""
    return np.repeat(runs, run, axis=0)


def apply_masks(tensors: Tensors, masks: Mapping[str, np.ndarray]) -> Tensors:
    """Returns ``tensors`` with zeros where a mask is False; the same arrays where there is no mask.

    >>> apply_masks({"k": np.ones(3, np.float32)}, {"k": np.array([True, False, True])})["k"].tolist()
    [1.0, 0.0, 1.0]
    """
    return {
        path: np.where(masks[path], value, np.float32(0.0)) if path in masks else value
        for path, value in tensors.items()
    }


def _mask(kernel: np.ndarray, share: float, run: int) -> np.ndarray:
    groups = np.abs(kernel).reshape(kernel.shape[0] // run, run, *kernel.shape[1:])
    magnitude = groups.astype(np.float64).sum(axis=1)
    lives = np.ones(magnitude.size, bool)
    lives[np.argsort(magnitude.ravel(), kind="stable")[: round(share * magnitude.size)]] = False
    return spread_runs(lives.reshape(magnitude.shape), run)
