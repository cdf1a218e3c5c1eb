"""Kinds of models × engines: what a plain Keras loop trains, or a refusal before training that names the layer.

The loop is eager Keras: its layers, its tape, its loss objects, its optimizer, one batch after the other. Random layers
draw what `keyed_draws` gives them, in the loop too; that the draws differ where they must is tested apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.engines import Task, open_engine, train_each, visits
from device_sim.engines.trainers.draws import keyed_draws
from device_sim.engines.trainers.keras import KerasTrainer
from device_sim.engines.trainers.litert import LitertTrainer, Programs
from device_sim.engines.trainers.vectorized import VectorizedTrainer, why_not
from fl_mobile.errors import ConfigError, ExportError, ModelError
from fl_mobile.local import OPTIMIZERS
from fl_mobile.models import keras_bridge
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Tensors
from tests.crossings.model_kinds import EXAMPLES, KINDS, Kind, build_kind, half_precision, two_heads

pytestmark = pytest.mark.tf

PLAN = FitPlan(epochs=2, batch_size=4, learning_rate=0.05, optimizer="momentum")
RANDOM = ("dropout", "noise", "own draws", "flips", "GRU with dropout", "attention", "stochastic depth")
ENGINES_HERE = ("keras", "vectorized", "litert")
NOT_ON_PHONES = {  # kind → what the refusal names
    "a loss of its own": "Sparse",
}


def tasks_of(kind: Kind, outputs: int) -> list[Task]:
    """Three devices, the last batch of each shorter than the others."""
    x, y = EXAMPLES[kind.x], np.arange(16) % max(outputs, 2)
    return [Task(d, x[at : at + n], y[at : at + n], seed=40 + d) for d, (at, n) in enumerate([(0, 5), (5, 3), (8, 7)])]


def keras_loss(kind: Kind, y: np.ndarray, out: Any, *, from_logits: bool) -> Any:
    import keras

    losses = keras.losses
    if kind.loss == "mse":
        return losses.MeanSquaredError()(y[:, None].astype(np.float32), out)
    if kind.loss == "binary-crossentropy":
        return losses.BinaryCrossentropy(from_logits=from_logits)(y[:, None], out)
    return losses.SparseCategoricalCrossentropy(from_logits=from_logits)(y, out)


def plain_loop(kind: Kind, model: Any, weights: Tensors, task: Task, plan: FitPlan) -> Tensors:
    """Returns the update of one device, by Keras alone."""
    import tensorflow as tf

    keras_bridge.write(model, weights)
    optimizer = OPTIMIZERS[plan.optimizer].keras(plan.learning_rate, plan.momentum)
    seed = tf.constant(seed_for(task.seed, "dropout") & 0x7FFFFFFF, tf.int32)
    for number, rows in enumerate(visits(task, plan)):
        with tf.GradientTape() as tape, keyed_draws(model, seed, tf.constant(number)):
            out = model(task.x[rows].astype(np.float32), training=True)
            value = keras_loss(kind, task.y[rows], out, from_logits=plan.from_logits) + sum(model.losses)
        found = tape.gradient(value, model.trainable_variables)
        found = [
            tf.zeros_like(v.value) if g is None else g for g, v in zip(found, model.trainable_variables, strict=True)
        ]
        optimizer.apply(found, model.trainable_variables)
    after = keras_bridge.read(model)
    return {path: new - old for (path, old), new in zip(weights.items(), after.values(), strict=True)}


def assert_close(updates: Sequence[Update], expected: Sequence[Tensors], what: str, tolerance: float) -> None:
    for update, want in zip(updates, expected, strict=True):
        for (path, value), other in zip(update.delta.items(), want.values(), strict=True):
            np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance / 10, err_msg=f"{what}: {path}")


@pytest.mark.parametrize("name", KINDS)
def test_both_keras_engines_train_what_a_plain_loop_trains(name: str) -> None:
    kind = KINDS[name]
    trainer = KerasTrainer(kind.build, EXAMPLES[kind.x][:4])
    plan = replace(PLAN, loss=kind.loss, from_logits=trainer.from_logits)
    tasks = tasks_of(kind, trainer.model.output_shape[-1])
    other = kind.build()
    expected = [plain_loop(kind, other, trainer.initial, task, plan) for task in tasks]
    assert_close(trainer.train(trainer.initial, tasks, plan), expected, "keras", 2e-4)
    if why_not(trainer.model):
        with pytest.raises(ConfigError, match=r"engine vectorized: .*'"):
            VectorizedTrainer(kind.build, EXAMPLES[kind.x][:4], trainer)
        return
    vectorized = VectorizedTrainer(kind.build, EXAMPLES[kind.x][:4], trainer)
    assert_close(vectorized.train(trainer.initial, tasks, plan), expected, "vectorized", 2e-4)


@pytest.mark.sample(r"one logit that starts at zero|noise|scalar weight")
@pytest.mark.parametrize("name", KINDS)
def test_phones_train_the_same_or_refuse_by_layer(name: str) -> None:
    kind = KINDS[name]
    if name in NOT_ON_PHONES:
        with pytest.raises(ExportError, match=NOT_ON_PHONES[name]):
            _on_phones(kind)
        return
    trainer, plan, tasks = _on_phones(kind)
    other = kind.build()
    expected = [plain_loop(kind, other, trainer.initial, task, plan) for task in tasks]
    assert_close(trainer.train(trainer.initial, tasks, plan), expected, "litert", 1e-3)


def _on_phones(kind: Kind) -> tuple[LitertTrainer, FitPlan, list[Task]]:
    programs = Programs(kind.build, EXAMPLES[kind.x][:4])
    plan = replace(PLAN, loss=kind.loss, from_logits=programs.from_logits)
    programs.get(plan, plan.batch_size)
    return LitertTrainer(programs), plan, tasks_of(kind, kind.build().output_shape[-1])


@pytest.mark.parametrize("name", ["many at once", "masked LSTM"])
@pytest.mark.parametrize(
    ("pool", "workers"),
    [
        ("threads", 2),
        pytest.param("processes", 2, marks=pytest.mark.slow),
        pytest.param("ray", 2, marks=pytest.mark.slow),
    ],
)
def test_workers_wherever_they_are_change_no_bit(name: str, pool: str, workers: int) -> None:
    if pool == "ray":
        pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    kind = KINDS[name]
    found = []
    for where, count in (("threads", 1), (pool, workers)):
        engine = open_engine("auto", partial(build_kind, name), EXAMPLES[kind.x][:4], workers=count, pool=where)
        plan = replace(PLAN, loss=kind.loss, from_logits=engine.from_logits)
        tasks = [replace(task, device=d, seed=d) for d in range(40) for task in tasks_of(kind, 2)]
        found.append([update for _, update in train_each(engine, engine.initial, tasks, plan)])
        engine.close()
    for one, other in zip(*found, strict=True):
        assert one.loss == other.loss
        assert all(np.array_equal(one.delta[path], other.delta[path]) for path in one.delta)


@pytest.mark.parametrize(
    ("build", "engine", "words"),
    [
        (two_heads, "auto", "has 2 outputs.*model.outputs"),
        *((half_precision, name, r"layer 'half' \(Dense\) computes in float16.*float32") for name in ENGINES_HERE),
    ],
)
def test_kinds_that_no_engine_trains_are_refused_before_round_1(build: Any, engine: str, words: str) -> None:
    rng = np.random.default_rng(0)
    clients = [(rng.random((6, 5)).astype(np.float32), np.arange(6) % 3) for _ in range(2)]
    with pytest.raises((ModelError, ExportError), match=words) as caught:
        device_sim.simulate(build, clients, rounds=1, workers=1, engine=engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RANDOM)
def test_draws_follow_from_device_round_step_and_layer_alone(name: str) -> None:
    """Weights that do not move show it: every step is the same step, but for what is drawn."""
    import tensorflow as tf

    kind = KINDS[name]
    model = kind.build()
    x = tf.cast(EXAMPLES[kind.x], tf.float32)

    def answer(seed: int, step: int) -> np.ndarray:
        with keyed_draws(model, tf.constant(seed), tf.constant(step)):
            return np.asarray(model(x, training=True))

    first = answer(1, 0)
    np.testing.assert_array_equal(first, answer(1, 0))
    assert not np.array_equal(first, answer(2, 0)), "other devices and rounds have other seeds"
    assert not np.array_equal(first, answer(1, 1)), "every step draws afresh"


def test_two_layers_of_a_kind_draw_differently() -> None:
    import keras
    import tensorflow as tf

    noises = [keras.layers.GaussianNoise(1.0) for _ in range(2)]
    x = keras.Input((50,))
    model = keras.Model(x, [noise(x) for noise in noises])
    with keyed_draws(model, tf.constant(1), tf.constant(0)):
        a, b = model(tf.zeros((1, 50)), training=True)
    assert abs(np.corrcoef(a[0], b[0])[0, 1]) < 0.5


def test_flips_of_one_picture_a_device_are_as_good_as_fresh_flips() -> None:
    """Four phones with one picture each; tested on the mirrored ones, which no phone has. A draw that is the same in
    every round would leave half of the pictures unmirrored for ever."""
    import keras

    def build() -> Any:
        keras.utils.set_random_seed(1)
        L = keras.layers
        return keras.Sequential(
            [L.Input((4, 6, 1)), L.RandomFlip("horizontal"), L.Rescaling(1 / 255), L.Flatten(), L.Dense(4)]
        )

    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, (4, 4, 6, 1)).astype(np.uint8)
    trainer = KerasTrainer(build, pictures[:2])
    weights, plan = trainer.initial, FitPlan(epochs=1, batch_size=1, learning_rate=1.0)
    for round_num in range(60):
        tasks = [Task(d, pictures[d : d + 1], np.array([d]), seed_for(0, round_num, d)) for d in range(4)]
        updates = trainer.train(weights, tasks, plan)
        weights = {p: w + np.mean([u.delta[p] for u in updates], axis=0) for p, w in weights.items()}
    flipped = Task(0, pictures[:, :, ::-1], np.arange(4), 0)
    assert trainer.score(weights, [flipped], plan)[0].accuracy == 1.0
