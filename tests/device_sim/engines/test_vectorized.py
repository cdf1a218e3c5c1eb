"""Devices side by side on a device axis against the same devices one after another; and who chooses which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task, open_engine, train_each
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for

pytestmark = pytest.mark.tf
SHAPE = (6, 6, 1)
RATES = {"sgd": 0.1, "momentum": 0.1, "adam": 0.01}


def dense() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(7, activation="relu", kernel_regularizer="l2"),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )


def task(device: int) -> Task:
    rng, count = rng_for(5, device), 5 + 3 * device
    return Task(device, rng.integers(0, 255, (count, *SHAPE)).astype(np.uint8), rng.integers(0, 3, count), seed=device)


def updates(name: str, tasks: list[Task], plan: FitPlan, workers: int = 1) -> list[Any]:
    engine = open_engine(name, dense, task(0).x, workers=workers)
    return [update for _, update in train_each(engine, engine.initial, tasks, plan)]


@pytest.mark.sample(r"sgd-plain|momentum-personal|adam-clipped")
@pytest.mark.parametrize("extra", ["plain", "personal", "clipped"])
@pytest.mark.parametrize("optimizer", RATES)
def test_side_by_side_equals_one_after_another(optimizer: str, extra: str) -> None:
    """Unequal sizes, dropout, regularisation; with a start, a pull and a proximal term of its own, or clipping."""
    plan = FitPlan(epochs=2, batch_size=4, learning_rate=RATES[optimizer], optimizer=optimizer)
    plan = replace(plan, proximal_mu=0.5 * (extra == "personal"), clip_gradient_norm=0.5 * (extra == "clipped"))
    found = []
    for name in ("keras", "vectorized"):
        engine = open_engine(name, dense, task(0).x, workers=1)
        rng = np.random.default_rng(0)
        tasks = [task(device) for device in range(6)]
        if extra == "personal":
            pull = {p: rng.normal(0, 0.1, v.shape).astype(np.float32) for p, v in engine.initial.items()}
            first = next(iter(engine.initial))
            tasks = [replace(t, pull=pull, start={first: engine.initial[first] + np.float32(0.1)}) for t in tasks]
        found.append([update for _, update in train_each(engine, engine.initial, tasks, plan)])
    for one, other in zip(*found, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-5)
        for a, b in zip(one.delta.values(), other.delta.values(), strict=True):
            assert np.abs(a).max() > 0
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_any_number_of_workers_gives_the_same_bits() -> None:
    plan = FitPlan(epochs=2, batch_size=4)
    one, two = (updates("vectorized", [task(d) for d in range(6)], plan, workers) for workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.delta.values(), b.delta.values(), strict=True))


def test_auto_says_which_and_why() -> None:
    import keras

    engine = open_engine("auto", dense, task(0).x, workers=1)
    assert engine.about.startswith("vectorized")

    def convolution() -> Any:
        flat = [keras.layers.Conv2D(2, 3, name="eye"), keras.layers.Flatten(), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input(SHAPE), *flat])

    probe = task(0).x.astype(np.float32)
    assert "layer 'eye' (Conv2D)" in open_engine("auto", convolution, probe, workers=1).about
    with pytest.raises(ConfigError, match=r"'eye' \(Conv2D\).*engine.name = \"keras\""):
        open_engine("vectorized", convolution, probe, workers=1)


def test_auto_trains_large_steps_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_sim.engines.trainers import auto

    plan, tasks = FitPlan(epochs=1, batch_size=4), [task(d) for d in range(3)]
    small = updates("auto", tasks, plan)
    monkeypatch.setattr(auto, "SMALL_STEP", 1)
    large = updates("auto", tasks, plan)
    for mine, theirs in ((small, updates("vectorized", tasks, plan)), (large, updates("keras", tasks, plan))):
        for a, b in zip(mine, theirs, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.delta.values(), b.delta.values(), strict=True))
