"""The litert engine against the keras engine: the same batches, the same deltas by path."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task, open_engine, pairs
from fl_mobile.errors import ConfigError
from fl_mobile.records import LOSSES, OPTIMIZERS, FitPlan
from fl_mobile.seeds import rng_for
from tests.device_sim.small_models import CLASSES, MODELS, SHAPE, frozen_base, subclassed, three_dense, with_batchnorm

pytestmark = pytest.mark.tf

PLAN = FitPlan(epochs=2, batch_size=4, learning_rate=0.05)


def task(device: int, count: int = 11) -> Task:
    rng = rng_for(5, device)
    x = rng.integers(0, 255, (count, *SHAPE)).astype(np.uint8)
    return Task(device, x, rng.integers(0, CLASSES, count), seed=device)


def litert(build: Any, workers: int = 1) -> Any:
    return open_engine("litert", build, task(0, 8).x, workers=workers)


def keras(build: Any) -> Any:
    return open_engine("keras", build, task(0, 8).x, workers=1)


def compare(build: Any, plan: FitPlan, bound: float = 2e-5) -> None:
    """Both engines train three devices; the second starts where nothing of the first may be left."""
    two, one = keras(build), litert(build)  # keras first: it sets TensorFlow to one thread
    plan = replace(plan, from_logits=one.from_logits)
    assert one.from_logits == two.from_logits
    tasks = [task(d, n) for d, n in enumerate((11, 4, 7))]
    both = zip(one.train(one.initial, tasks, plan, pairs), two.train(two.initial, tasks, plan, pairs), strict=True)
    for (done, mine), (_, theirs) in both:
        assert list(mine.delta) == list(one.spec)
        assert mine.num_examples == theirs.num_examples == len(done.y)
        assert mine.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-4)
        for (path, a), b in zip(mine.delta.items(), theirs.delta.values(), strict=True):
            np.testing.assert_allclose(a, b, atol=bound * max(1.0, float(np.abs(b).max())), err_msg=path)
    mine, theirs = (e.evaluate(e.initial, *_held_out(), plan) for e in (one, two))
    assert (mine.accuracy, mine.examples) == (theirs.accuracy, theirs.examples)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)


def _held_out() -> tuple[np.ndarray, np.ndarray]:
    done = task(9, 37)
    return done.x, done.y


@pytest.mark.parametrize("name", MODELS)
def test_every_topology_trains_as_on_keras(name: str) -> None:
    compare(MODELS[name], PLAN)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str) -> None:
    rate = 1e-3 if optimizer == "adam" else 0.05
    compare(three_dense, replace(PLAN, optimizer=optimizer, learning_rate=rate), 1e-3 if optimizer == "adam" else 2e-5)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "binary-crossentropy"])
def test_every_loss(loss: str) -> None:
    compare(three_dense, replace(PLAN, loss=loss))


def test_proximal_term_and_clipping() -> None:
    compare(three_dense, replace(PLAN, proximal_mu=0.5, clip_gradient_norm=0.2, epochs=3))


def test_order_of_the_examples() -> None:
    compare(three_dense, replace(PLAN, shuffle=False))


def test_same_bits_for_any_number_of_workers() -> None:
    one, two = litert(with_batchnorm, 1), litert(with_batchnorm, 2)
    tasks = [task(d, 5 + 3 * d) for d in range(5)]
    alone = {t.device: next(iter(one.train(one.initial, [t], PLAN, pairs)))[1] for t in reversed(tasks)}
    for done, update in two.train(two.initial, tasks, PLAN, pairs):
        assert update.metrics == alone[done.device].metrics
        for a, b in zip(update.delta.values(), alone[done.device].delta.values(), strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.any(a), "every travelling tensor must move"


def test_a_batch_larger_than_the_device_and_frozen_layers() -> None:
    compare(frozen_base, replace(PLAN, batch_size=16))


def test_dropout_depends_on_the_devices_seed() -> None:
    engine = litert(subclassed)
    plan = replace(PLAN, from_logits=engine.from_logits, shuffle=False)
    train = partial(engine.train, engine.initial, plan=plan, then=pairs)
    first, again, other = (next(iter(train([replace(task(1), seed=s)])))[1].metrics["loss"] for s in (1, 1, 2))
    assert first == again != other


def test_a_plan_without_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch-size"):
        next(iter(litert(three_dense).train({}, [task(0)], replace(PLAN, batch_size=0), pairs)))
