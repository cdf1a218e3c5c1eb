"""The keras engine against hand-written Keras loops, and what must never leak between devices."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task, open_engine, train_each, visits
from device_sim.engines.trainers import keras as keras_trainer
from export.model.recurrent import recurrent_layers
from fl_mobile.errors import ModelError, SpecMismatch
from fl_mobile.local import LOSSES, OPTIMIZERS
from fl_mobile.models import keras_bridge
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors, fp32_bytes
from tests.device_sim.small_models import CLASSES, MODELS, SHAPE, frozen_base, three_dense, with_batchnorm

pytestmark = pytest.mark.tf

PLAN = FitPlan(epochs=2, batch_size=4, learning_rate=0.1)


def task(device: int, count: int = 11) -> Task:
    rng = rng_for(5, device)
    x = rng.integers(0, 255, (count, *SHAPE)).astype(np.uint8)
    return Task(device, x, rng.integers(0, CLASSES, count), seed=device)


def engine(build: Any, workers: int = 1) -> Any:
    return open_engine("keras", build, task(0, 8).x, workers=workers)


def same(a: Tensors, b: Tensors) -> bool:
    # By order: Keras numbers the layers of a second model differently.
    return all(np.array_equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_same_updates_for_any_workers_and_any_company(name: str) -> None:
    one, two = engine(MODELS[name], 1), engine(MODELS[name], 2)
    plan = replace(PLAN, from_logits=one.from_logits)
    tasks = [task(d, 5 + 3 * d) for d in range(6)]
    alone = {t.device: next(iter(train_each(one, one.initial, [t], plan)))[1] for t in reversed(tasks)}
    for done, update in train_each(two, two.initial, tasks, plan):
        assert same(update.delta, alone[done.device].delta)
        assert update.metrics == alone[done.device].metrics
        assert update.num_examples == len(done.y)
        assert all(np.any(v) for v in update.delta.values()), "every travelling tensor must move"


def test_every_tensor_of_three_layers_travels() -> None:
    model = three_dense()
    spec = keras_bridge.spec_of(model)
    assert sum(t.size for t in spec.values()) == model.count_params() == 467
    assert len(spec) == 6, "six variables, three of them named 'kernel'"


def test_writing_into_a_twin_of_the_same_function() -> None:
    first, twin = three_dense(), three_dense()
    tensors = {p: np.full_like(v, i) for i, (p, v) in enumerate(keras_bridge.read(first).items())}
    keras_bridge.write(twin, tensors)
    assert same(keras_bridge.read(twin), tensors)
    with pytest.raises(SpecMismatch, match="different model"):
        keras_bridge.write(with_batchnorm(), tensors)


def test_frozen_base_uploads_only_the_head() -> None:
    spec = keras_bridge.spec_of(frozen_base())
    assert sorted(p.split("/")[-1] for p in spec) == ["bias", "kernel"]
    assert all("head" in p for p in spec)
    assert fp32_bytes(spec) == 4 * (64 * CLASSES + CLASSES)


def test_statistics_travel_but_are_not_trainable() -> None:
    spec = keras_bridge.spec_of(with_batchnorm())
    fixed = {p.split("/")[-1] for p, t in spec.items() if not t.trainable}
    assert fixed == {"moving_mean", "moving_variance"}
    assert not any("seed" in p for p in spec)


def oracle_sgd(build: Any, weights: Tensors, work: Task, plan: FitPlan) -> Tensors:
    """The obvious loop: eager Keras, one batch after the other."""
    import keras
    import tensorflow as tf

    model = build()
    keras_bridge.write(model, weights)
    start = [tf.identity(v.value) for v in model.trainable_variables]
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=plan.from_logits)
    for rows in visits(work, plan):
        with tf.GradientTape() as tape:
            out = model(work.x[rows].astype(np.float32), training=True)
            loss = loss_fn(work.y[rows], out)
        for v, g, w in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), start, strict=True
        ):
            v.assign_sub(plan.learning_rate * (g + plan.proximal_mu * (v - w)))
    after = keras_bridge.read(model)
    return {p: new - old for (p, old), new in zip(weights.items(), after.values(), strict=True)}


@pytest.mark.sample(r"3-0.0|8-0.7|11-0.0")
@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("count", [3, 8, 11])
def test_equals_an_eager_loop_with_last_short_batch_and_proximal_term(count: int, mu: float) -> None:
    def build() -> Any:
        import keras

        model = with_batchnorm()
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        return model

    plan, work = replace(PLAN, proximal_mu=mu, learning_rate=0.001), task(3, count)
    under_test = engine(build)
    ((_, update),) = train_each(under_test, under_test.initial, [work], plan)
    expected = oracle_sgd(build, under_test.initial, work, plan)
    for (path, value), other in zip(update.delta.items(), expected.values(), strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-3, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_state_starts_afresh_on_every_device(optimizer: str) -> None:
    under_test = engine(three_dense)
    plan = replace(PLAN, optimizer=optimizer, learning_rate=0.01)
    updates = [u for _, u in train_each(under_test, under_test.initial, [task(1), task(2), task(1)], plan)]
    assert same(updates[0].delta, updates[2].delta)
    assert not same(updates[0].delta, updates[1].delta)


@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.one_per_class])
def test_every_loss_falls(loss: str) -> None:
    under_test = engine(three_dense)
    plan = replace(PLAN, loss=loss, learning_rate=1e-4, epochs=1)
    work = task(1, 12)
    before = under_test.evaluate(under_test.initial, work.x, work.y, plan).loss
    ((_, update),) = train_each(under_test, under_test.initial, [work], replace(plan, epochs=20))
    after = {p: w + update.delta[p] for p, w in under_test.initial.items()}
    assert under_test.evaluate(after, work.x, work.y, plan).loss < before


def test_gradient_clipping_bounds_one_step() -> None:
    under_test = engine(three_dense)
    plan = replace(PLAN, epochs=1, batch_size=0, learning_rate=1.0, clip_gradient_norm=0.5)
    ((_, update),) = train_each(under_test, under_test.initial, [task(1)], plan)
    norm = np.sqrt(sum(float(np.sum(v.astype(np.float64) ** 2)) for v in update.delta.values()))
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_evaluate_counts_every_example_once() -> None:
    under_test = engine(three_dense, 2)
    work = task(1, 601)
    score = under_test.evaluate(under_test.initial, work.x, work.y, PLAN)
    model = three_dense()
    logits = model(work.x.astype(np.float32)).numpy()
    assert score.accuracy == np.mean(logits.argmax(axis=1) == work.y)
    assert score.examples == 601


def test_probabilities_and_logits_are_told_apart() -> None:
    assert engine(three_dense).from_logits
    assert not engine(MODELS["subclassed"]).from_logits


def test_mistakes_in_models_are_named() -> None:
    import keras

    with pytest.raises(ModelError, match="not built"):
        keras_bridge.spec_of(keras.Sequential([keras.layers.Dense(3)]))
    model = three_dense()
    model.trainable = False
    with pytest.raises(ModelError, match="no trainable variable"):
        keras_bridge.spec_of(model)
    with pytest.raises(SpecMismatch, match="different model"):
        keras_bridge.write(three_dense(), {})
    sizes = iter([4, 5])

    def moody() -> Any:
        return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(next(sizes))])

    with pytest.raises(ModelError, match="two different models"):
        engine(moody, 2)


def gru() -> Any:
    """A recurrent model with time steps that a mask leaves out."""
    import keras
    from keras import layers

    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.LSTM(4)(x)))


def test_a_short_recurrent_layer_trains_step_by_step_as_it_does_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = rng_for(5, "tokens")
    tokens = np.sort(rng.integers(0, 11, (13, 6)), axis=1)[:, ::-1].astype(np.int32)  # padding is last
    work = Task(0, tokens, rng.integers(0, 3, 13), seed=0)
    updates = {}
    for steps in (keras_trainer.UNROLLED_STEPS, 1):
        monkeypatch.setattr(keras_trainer, "UNROLLED_STEPS", steps)
        trainer = keras_trainer.KerasTrainer(partial(seeded, gru), tokens)
        assert trainer.time_steps == 6
        updates[steps] = trainer.train(trainer.initial, [work], PLAN)[0]
        assert not any(layer.unroll for layer in recurrent_layers(trainer.model))
    unrolled, looped = updates.values()
    assert unrolled.metrics["loss"] == pytest.approx(looped.metrics["loss"], rel=1e-5)
    for a, b in zip(unrolled.delta.values(), looped.delta.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
        assert np.any(a)


def seeded(build: Any) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return build()
