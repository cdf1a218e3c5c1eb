"""A local optimizer is one row: with it, experiments, both Keras engines and the count of steps know it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_sim.engines.trainers.keras import KerasTrainer
from device_sim.engines.trainers.vectorized import VectorizedTrainer
from fl_mobile.local.optimizers import OPTIMIZERS, LocalOptimizer
from tests.crossings.model_kinds import EXAMPLES, KINDS
from tests.crossings.test_models import PLAN, assert_close, plain_loop, tasks_of

pytestmark = pytest.mark.tf


def _adagrad(w: Any, g: Any, slots: Any, rate: Any, done: Any, momentum: float) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    total = slots[0] + g * g
    return w - rate * g / tf.sqrt(total + 1e-3), [total]


def _keras_adagrad(rate: float, momentum: float) -> Any:
    import keras

    return keras.optimizers.Adagrad(rate, initial_accumulator_value=0.0, epsilon=1e-3)


def test_a_row_is_all_there_is_to_a_new_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    row = LocalOptimizer(("total",), _adagrad, lambda steps, momentum: float(steps), _keras_adagrad)
    monkeypatch.setitem(OPTIMIZERS, "adagrad", row)
    kind = KINDS["softmax"]
    trainer = KerasTrainer(kind.build, EXAMPLES[kind.x][:4])
    plan, tasks = replace(PLAN, optimizer="adagrad", from_logits=trainer.from_logits), tasks_of(kind, 3)
    other = kind.build()
    expected = [plain_loop(kind, other, trainer.initial, task, plan) for task in tasks]
    assert_close(trainer.train(trainer.initial, tasks, plan), expected, "keras", 2e-4)
    vectorized = VectorizedTrainer(kind.build, EXAMPLES[kind.x][:4], trainer)
    assert_close(vectorized.train(trainer.initial, tasks, plan), expected, "vectorized", 2e-4)
    assert plan.local_steps(7) == 4
    assert all(np.any(value) for value in expected[0].values())


def test_what_lora_freezes_does_not_travel() -> None:
    trainer = KerasTrainer(KINDS["LoRA"].build, EXAMPLES["features"][:4])
    names = [path.rpartition("/")[2] for path in trainer.spec]
    assert sorted(names) == ["bias", "bias", "kernel", "lora_kernel_a", "lora_kernel_b"]
