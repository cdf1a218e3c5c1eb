"""Chooses between vectorized and keras, by rules that depend on the model and plan alone.

A choice by stopwatch would change results from run to run: the two engines differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from device_sim.engines.records import Evaluation, Task
from device_sim.engines.trainers.keras import KerasTrainer
from device_sim.engines.trainers.vectorized import VectorizedTrainer, why_not
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors

SMALL_STEP = 32 * 250_000
"""Examples of a step × parameters up to which devices go side by side.

They were faster so for the steps of W2 and W3 (``benchmarks/fleet.py``), a quarter of this and less; where it ends was
not measured."""


class AutoTrainer:
    """`Trainer` that hands each call to the faster one, and to keras where a plan asks for rounding.

    Arguments as in `KerasTrainer`.
    """

    def __init__(self, build: Callable[[], Any], probe: np.ndarray) -> None:
        self._keras = KerasTrainer(build, probe)
        reason = why_not(self._keras.model)
        self._vectorized = None if reason else VectorizedTrainer(build, probe, self._keras)
        self.spec, self.initial, self.from_logits = self._keras.spec, self._keras.initial, self._keras.from_logits
        self.time_steps = self._keras.time_steps
        self._parameters = sum(tensor.size for tensor in self.spec.values())
        self.about = f"keras, because {reason}" if reason else "vectorized, because every layer can be batched"
        self.about += self._keras.threads

    def prepare(self, plan: FitPlan) -> None:
        """Refuses nothing, as keras."""

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        """Returns each task's update."""
        batch = plan.batch_size or max(len(task.y) for task in tasks)
        small = batch * self._parameters <= SMALL_STEP and not plan.fake_quant
        trainer = self._vectorized if self._vectorized and small else self._keras
        return trainer.train(weights, tasks, plan)

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        """Returns accuracy and mean loss on each task's examples."""
        return self._keras.score(weights, tasks, plan)
